# The scenario of openapi/sdk with the generated Ruby client: scenario.rb URL KEY LIMITED_KEY.

require 'cursus_client'

def configured(url, key)
  config = Cursus::Configuration.new
  config.scheme, config.host = url.split('://')
  config.base_path = ''
  config.server_index = nil
  config.access_token = key
  Cursus::ApiClient.new(config)
end

def check(holds, what)
  raise "unexpected: #{what.inspect}" unless holds
end

url, key, limited_key = ARGV
client = configured(url, key)
$messages = Cursus::MessagesApi.new(client)
topics = Cursus::TopicsApi.new(client)
subscriptions = Cursus::SubscriptionsApi.new(client)

# Receives until there are `count` messages, by their body.
def receive(subscription, count)
  found = {}
  while found.size < count
    request = Cursus::ReceiveRequest.new(max_messages: 10, wait_seconds: 10)
    more = $messages.receive(subscription, receive_request: request).messages
    check(!more.empty?, found.keys)
    more.each { |m| found[m.body || m.body_base64 || m.body_url] = m }
  end
  found
end

def settle(subscription, receipt, action, **options)
  item = Cursus::SettleItem.new(receipt: receipt, action: action, **options)
  result = $messages.settle(subscription, Cursus::SettleRequest.new(items: [item])).results.first
  check(result.error.nil?, result)
  result
end

# The code and the headers of a request that fails.
def problem
  yield
  raise 'the request succeeded'
rescue Cursus::ApiError => error
  [JSON.parse(error.response_body)['code'], error.response_headers]
end

# Create.
topics.put_topic('ruby-orders', topic_settings: Cursus::TopicSettings.new(retention_seconds: 3600))
topics.put_topic('ruby-dead')
billing = Cursus::SubscriptionSettings.new(topic: 'ruby-orders', dead_letter_topic: 'ruby-dead',
                                           visibility_timeout_seconds: 30, from: Cursus::StartPosition::EARLIEST)
check(subscriptions.put_subscription('ruby-billing', subscription_settings: billing).max_attempts == 16, billing)
subscriptions.put_subscription('ruby-failed', subscription_settings: Cursus::SubscriptionSettings.new(topic: 'ruby-dead'))

# Publish text, JSON and bytes.
$messages.publish('ruby-orders', body: 'two espressos', cursus_tag: 'coffee', idempotency_key: '"ruby-1"')
batch = [Cursus::PublishMessage.new(json: { cups: 2 }, attributes: { 'table' => '7' }),
         Cursus::PublishMessage.new(body_base64: 'AP8=')]
results = $messages.publish_batch('ruby-orders', Cursus::PublishBatch.new(messages: batch)).results
check(results.map(&:error) == [nil, nil], results)

# Receive and settle in every way.
found = receive('ruby-billing', 3)
text, order, binary = found.values_at('two espressos', '{"cups":2}', 'AP8=')
check(text.tag == 'coffee' && order.attributes['table'] == '7' && binary, found)
extended = settle('ruby-billing', text.receipt, 'extend', visibility_timeout_seconds: 600)
check(extended.visible_until > text.visible_until, extended)
settle('ruby-billing', order.receipt, Cursus::SettleAction::NACK, delay_seconds: 0)
again = receive('ruby-billing', 1)['{"cups":2}']
check(again.attempt == 2, again)
settle('ruby-billing', again.receipt, 'ack')
settle('ruby-billing', extended.receipt, 'ack')
settle('ruby-billing', binary.receipt, 'dead_letter', reason: 'no table')
check(receive('ruby-failed', 1).key?('AP8='), 'the dead letter')

# Problems.
code, = problem { topics.get_topic('ruby-missing') }
check(code == 'not_found', code)
code, headers = problem { Cursus::TopicsApi.new(configured(url, limited_key)).put_topic('ruby') }
check(code == 'quota_exceeded' && headers['Retry-After'].to_i.positive?, [code, headers])

# A long poll that ends empty.
start = Time.now
empty = $messages.receive('ruby-billing', receive_request: Cursus::ReceiveRequest.new(wait_seconds: 1)).messages
check(empty.empty? && Time.now - start > 0.9, empty)

# 5 MB both ways.
body = '0123456789' * 500_000
$messages.publish('ruby-orders', body: body)
large = receive('ruby-billing', 1).values.first
file = $messages.get_message_body(large.id)
check(File.binread(file.path) == body, 'the large body')
settle('ruby-billing', large.receipt, 'ack')
