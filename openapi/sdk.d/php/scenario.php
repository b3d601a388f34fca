<?php
// The scenario of openapi/sdk with the generated PHP client: scenario.php CLIENT URL KEY LIMITED_KEY.

use Cursus\Api\{MessagesApi, SubscriptionsApi, TopicsApi};
use Cursus\{ApiException, Configuration};
use Cursus\Model\{PublishBatch, PublishMessage, ReceiveRequest, SettleAction, SettleItem, SettleRequest};
use Cursus\Model\{SubscriptionSettings, TopicSettings};

[, $generated, $url, $key, $limited_key] = $argv;
require 'GuzzleHttp/autoload.php';
spl_autoload_register(function ($class) use ($generated) {
    [$vendor, $path] = explode('\\', $class, 2) + [1 => ''];
    $vendor === 'Cursus' && require "$generated/lib/" . strtr($path, '\\', '/') . '.php';
});

$configured = fn ($key) => (new Configuration())->setHost($url)->setAccessToken($key);
$messages = new MessagesApi(null, $configured($key));
$topics = new TopicsApi(null, $configured($key));
$subscriptions = new SubscriptionsApi(null, $configured($key));

function check($holds, $what)
{
    $holds || throw new Exception('unexpected: ' . var_export($what, true));
}

/** Receives until there are so many messages, by their body. */
$receive = function ($subscription, $count) use ($messages) {
    $found = [];
    while (count($found) < $count) {
        $request = new ReceiveRequest(['max_messages' => 10, 'wait_seconds' => 10]);
        $more = $messages->receive($subscription, $request)->getMessages();
        check($more, array_keys($found));
        foreach ($more as $message) {
            $found[$message->getBody() ?? $message->getBodyBase64() ?? $message->getBodyUrl()] = $message;
        }
    }
    return $found;
};
$settle = function ($subscription, $receipt, $action, $options = []) use ($messages) {
    $item = new SettleItem(['receipt' => $receipt, 'action' => $action] + $options);
    $result = $messages->settle($subscription, new SettleRequest(['items' => [$item]]))->getResults()[0];
    check($result->getError() === null, $result);
    return $result;
};
/** The problem and the headers of a request that fails. */
$problem = function ($request) {
    try {
        $request();
    } catch (ApiException $error) {
        return [json_decode($error->getResponseBody()), array_change_key_case($error->getResponseHeaders())];
    }
    throw new Exception('the request succeeded');
};

// Create.
$topics->putTopic('php-orders', new TopicSettings(['retention_seconds' => 3600]));
$topics->putTopic('php-dead');
$billing = ['topic' => 'php-orders', 'dead_letter_topic' => 'php-dead', 'visibility_timeout_seconds' => 30];
check($subscriptions->putSubscription('php-billing', new SubscriptionSettings($billing))->getMaxAttempts() === 16, $billing);
$subscriptions->putSubscription('php-failed', new SubscriptionSettings(['topic' => 'php-dead']));

// Publish text, JSON and bytes.
$messages->publish('php-orders', body: 'two espressos', cursus_tag: 'coffee', idempotency_key: '"php-1"');
$batch = new PublishBatch(['messages' => [
    new PublishMessage(['json' => ['cups' => 2], 'attributes' => ['table' => '7']]),
    new PublishMessage(['body_base64' => 'AP8=']),
]]);
foreach ($messages->publishBatch('php-orders', $batch)->getResults() as $result) {
    check($result->getError() === null, $result);
}

// Receive and settle in every way.
$found = $receive('php-billing', 3);
[$text, $order, $binary] = array_map(fn ($body) => $found[$body], ['two espressos', '{"cups":2}', 'AP8=']);
check($text->getTag() === 'coffee' && $order->getAttributes()['table'] === '7', $found);
$extended = $settle('php-billing', $text->getReceipt(), SettleAction::EXTEND, ['visibility_timeout_seconds' => 600]);
check($extended->getVisibleUntil() > $text->getVisibleUntil(), $extended);
$settle('php-billing', $order->getReceipt(), SettleAction::NACK, ['delay_seconds' => 0]);
$again = $receive('php-billing', 1)['{"cups":2}'];
check($again->getAttempt() === 2, $again);
$settle('php-billing', $again->getReceipt(), SettleAction::ACK);
$settle('php-billing', $extended->getReceipt(), SettleAction::ACK);
$settle('php-billing', $binary->getReceipt(), SettleAction::DEAD_LETTER, ['reason' => 'no table']);
check(isset($receive('php-failed', 1)['AP8=']), 'the dead letter');

// Problems.
[$missing] = $problem(fn () => $topics->getTopic('php-missing'));
check($missing->code === 'not_found', $missing);
[$full, $headers] = $problem(fn () => (new TopicsApi(null, $configured($limited_key)))->putTopic('php'));
check($full->code === 'quota_exceeded' && (int) $headers['retry-after'][0] > 0, $full);

// A long poll that ends empty.
$start = microtime(true);
$empty = $messages->receive('php-billing', new ReceiveRequest(['wait_seconds' => 1]))->getMessages();
check($empty === [] && microtime(true) - $start > 0.9, $empty);

// 5 MB both ways.
$body = str_repeat('0123456789', 500000);
$messages->publish('php-orders', body: $body);
$large = array_values($receive('php-billing', 1))[0];
$file = $messages->getMessageBody($large->getId());
check(file_get_contents($file->getPathname()) === $body, 'the large body');
$settle('php-billing', $large->getReceipt(), SettleAction::ACK);
