// The scenario of openapi/sdk with the generated Go client: scenario URL KEY LIMITED_KEY.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"cursus"
)

var ctx = context.Background()

func check(holds bool, what ...any) {
	if !holds {
		log.Panicln("unexpected:", what)
	}
}

func ok[T any](value T, response any, err error) T {
	check(err == nil, err, response)
	return value
}

func configured(url, key string) *cursus.APIClient {
	configuration := cursus.NewConfiguration()
	configuration.Servers = cursus.ServerConfigurations{{URL: url}}
	configuration.AddDefaultHeader("Authorization", "Bearer "+key)
	return cursus.NewAPIClient(configuration)
}

// Receives until there are so many messages, by their body.
func receive(client *cursus.APIClient, subscription string, count int) map[string]cursus.ReceivedMessage {
	found := map[string]cursus.ReceivedMessage{}
	for len(found) < count {
		request := cursus.ReceiveRequest{MaxMessages: cursus.PtrInt32(10), WaitSeconds: cursus.PtrInt32(10)}
		call := client.MessagesAPI.Receive(ctx, subscription).ReceiveRequest(request)
		more := ok(call.Execute()).Messages
		check(len(more) > 0, found)
		for _, message := range more {
			found[message.GetBody()+message.GetBodyBase64()+message.GetBodyUrl()] = message
		}
	}
	return found
}

func settle(client *cursus.APIClient, subscription string, item cursus.SettleItem) cursus.SettleResult {
	request := cursus.SettleRequest{Items: []cursus.SettleItem{item}}
	result := ok(client.MessagesAPI.Settle(ctx, subscription).SettleRequest(request).Execute()).Results[0]
	check(!result.HasError(), result.GetError())
	return result
}

func code(err error) cursus.ErrorCode {
	failure, is := err.(*cursus.GenericOpenAPIError)
	check(is, err)
	problem, is := failure.Model().(cursus.Problem)
	check(is, failure)
	return problem.Code
}

func main() {
	url, key, limitedKey := os.Args[1], os.Args[2], os.Args[3]
	client := configured(url, key)

	// Create.
	ok(client.TopicsAPI.PutTopic(ctx, "go-orders").TopicSettings(cursus.TopicSettings{RetentionSeconds: cursus.PtrInt32(3600)}).Execute())
	ok(client.TopicsAPI.PutTopic(ctx, "go-dead").Execute())
	billing := cursus.SubscriptionSettings{Topic: cursus.PtrString("go-orders"), DeadLetterTopic: cursus.PtrString("go-dead"), VisibilityTimeoutSeconds: cursus.PtrInt32(30)}
	made := ok(client.SubscriptionsAPI.PutSubscription(ctx, "go-billing").SubscriptionSettings(billing).Execute())
	check(made.MaxAttempts == 16, made)
	failed := cursus.SubscriptionSettings{Topic: cursus.PtrString("go-dead")}
	ok(client.SubscriptionsAPI.PutSubscription(ctx, "go-failed").SubscriptionSettings(failed).Execute())

	// Publish text, JSON and bytes.
	ok(client.MessagesAPI.Publish(ctx, "go-orders").Body("two espressos").CursusTag("coffee").IdempotencyKey(`"go-1"`).Execute())
	order := cursus.PublishMessage{Json: map[string]any{"cups": 2}, Attributes: map[string]string{"table": "7"}}
	batch := cursus.PublishBatch{Messages: []cursus.PublishMessage{order, {BodyBase64: cursus.PtrString("AP8=")}}}
	for _, result := range ok(client.MessagesAPI.PublishBatch(ctx, "go-orders").PublishBatch(batch).Execute()).Results {
		check(!result.HasError(), result)
	}

	// Receive and settle in every way.
	found := receive(client, "go-billing", 3)
	text, json, binary := found["two espressos"], found[`{"cups":2}`], found["AP8="]
	check(text.GetTag() == "coffee" && json.GetAttributes()["table"] == "7", found)
	extended := settle(client, "go-billing", cursus.SettleItem{Receipt: text.Receipt, Action: cursus.SETTLEACTION_EXTEND, VisibilityTimeoutSeconds: cursus.PtrInt32(600)})
	check(extended.GetVisibleUntil().After(text.VisibleUntil), extended)
	settle(client, "go-billing", cursus.SettleItem{Receipt: json.Receipt, Action: cursus.SETTLEACTION_NACK, DelaySeconds: cursus.PtrInt32(0)})
	again := receive(client, "go-billing", 1)[`{"cups":2}`]
	check(again.Attempt == 2, again)
	settle(client, "go-billing", cursus.SettleItem{Receipt: again.Receipt, Action: cursus.SETTLEACTION_ACK})
	settle(client, "go-billing", cursus.SettleItem{Receipt: extended.GetReceipt(), Action: cursus.SETTLEACTION_ACK})
	settle(client, "go-billing", cursus.SettleItem{Receipt: binary.Receipt, Action: cursus.SETTLEACTION_DEAD_LETTER, Reason: cursus.PtrString("no table")})
	dead := receive(client, "go-failed", 1)
	check(dead["AP8="].Receipt != "", dead)

	// Problems.
	_, _, err := client.TopicsAPI.GetTopic(ctx, "go-missing").Execute()
	check(code(err) == cursus.ERRORCODE_NOT_FOUND, err)
	_, response, err := configured(url, limitedKey).TopicsAPI.PutTopic(ctx, "go").Execute()
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	check(code(err) == cursus.ERRORCODE_QUOTA_EXCEEDED && seconds > 0, err)

	// A long poll that ends empty.
	start := time.Now()
	wait := cursus.ReceiveRequest{WaitSeconds: cursus.PtrInt32(1)}
	empty := ok(client.MessagesAPI.Receive(ctx, "go-billing").ReceiveRequest(wait).Execute())
	check(len(empty.Messages) == 0 && time.Since(start) > 900*time.Millisecond, empty)

	// 5 MB both ways.
	body := strings.Repeat("0123456789", 500_000)
	ok(client.MessagesAPI.Publish(ctx, "go-orders").Body(body).Execute())
	for _, large := range receive(client, "go-billing", 1) {
		file := ok(client.MessagesAPI.GetMessageBody(ctx, large.Id).Execute())
		bytes, err := io.ReadAll(file)
		check(err == nil && string(bytes) == body, err)
		settle(client, "go-billing", cursus.SettleItem{Receipt: large.Receipt, Action: cursus.SETTLEACTION_ACK})
	}
}
