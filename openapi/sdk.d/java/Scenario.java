// The scenario of openapi/sdk with the generated Java client: Scenario URL KEY LIMITED_KEY.

import cursus.client.ApiClient;
import cursus.client.ApiException;
import cursus.client.api.MessagesApi;
import cursus.client.api.SubscriptionsApi;
import cursus.client.api.TopicsApi;
import cursus.client.model.*;
import java.nio.file.Files;
import java.util.*;

public class Scenario {
    static MessagesApi messages;

    static void check(boolean holds, Object what) {
        if (!holds) throw new AssertionError("unexpected: " + what);
    }

    static ApiClient configured(String url, String key) {
        ApiClient client = new ApiClient();
        client.updateBaseUri(url);
        client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + key));
        return client;
    }

    static String body(ReceivedMessage message) {
        if (message.getBody() != null) return message.getBody();
        if (message.getBodyBase64() != null) return Base64.getEncoder().encodeToString(message.getBodyBase64());
        return message.getBodyUrl();
    }

    /** Receives until there are so many messages, by their body. */
    static Map<String, ReceivedMessage> receive(String subscription, int count) throws ApiException {
        Map<String, ReceivedMessage> found = new HashMap<>();
        while (found.size() < count) {
            ReceiveRequest request = new ReceiveRequest().maxMessages(10).waitSeconds(10);
            List<ReceivedMessage> more = messages.receive(subscription, request).getMessages();
            check(!more.isEmpty(), found);
            for (ReceivedMessage message : more) found.put(body(message), message);
        }
        return found;
    }

    static SettleResult settle(String subscription, SettleItem item) throws ApiException {
        SettleResult result = messages.settle(subscription, new SettleRequest().addItemsItem(item)).getResults().get(0);
        check(result.getError() == null, result);
        return result;
    }

    static SettleItem item(String receipt, SettleAction action) {
        return new SettleItem().receipt(receipt).action(action);
    }

    interface Request { void send() throws ApiException; }

    static ApiException failure(Request request) {
        try {
            request.send();
        } catch (ApiException error) {
            return error;
        }
        throw new AssertionError("the request succeeded");
    }

    public static void main(String[] args) throws Exception {
        ApiClient client = configured(args[0], args[1]);
        messages = new MessagesApi(client);
        TopicsApi topics = new TopicsApi(client);
        SubscriptionsApi subscriptions = new SubscriptionsApi(client);

        // Create.
        topics.putTopic("java-orders", new TopicSettings().retentionSeconds(3600));
        topics.putTopic("java-dead", new TopicSettings());
        SubscriptionSettings billing = new SubscriptionSettings().topic("java-orders").deadLetterTopic("java-dead").visibilityTimeoutSeconds(30);
        check(subscriptions.putSubscription("java-billing", billing).getMaxAttempts() == 16, billing);
        subscriptions.putSubscription("java-failed", new SubscriptionSettings().topic("java-dead"));

        // Publish text, JSON and bytes.
        messages.publish("java-orders", "coffee", null, "\"java-1\"", null, null, null, "two espressos");
        PublishBatch batch = new PublishBatch()
            .addMessagesItem(new PublishMessage().json(Map.of("cups", 2)).attributes(Map.of("table", "7")))
            .addMessagesItem(new PublishMessage().bodyBase64(new byte[] {0, -1}));
        for (PublishResult result : messages.publishBatch("java-orders", batch, null, null, null).getResults())
            check(result.getError() == null, result);

        // Receive and settle in every way.
        Map<String, ReceivedMessage> found = receive("java-billing", 3);
        ReceivedMessage text = found.get("two espressos"), order = found.get("{\"cups\":2}"), binary = found.get("AP8=");
        check(text != null && order != null && binary != null, found.keySet());
        check(text.getTag().equals("coffee") && order.getAttributes().get("table").equals("7"), found);
        SettleResult extended = settle("java-billing", item(text.getReceipt(), SettleAction.EXTEND).visibilityTimeoutSeconds(600));
        check(extended.getVisibleUntil().isAfter(text.getVisibleUntil()), extended);
        settle("java-billing", item(order.getReceipt(), SettleAction.NACK).delaySeconds(0));
        ReceivedMessage again = receive("java-billing", 1).get("{\"cups\":2}");
        check(again.getAttempt() == 2, again);
        settle("java-billing", item(again.getReceipt(), SettleAction.ACK));
        settle("java-billing", item(extended.getReceipt(), SettleAction.ACK));
        settle("java-billing", item(binary.getReceipt(), SettleAction.DEAD_LETTER).reason("no table"));
        check(receive("java-failed", 1).containsKey("AP8="), "the dead letter");

        // Problems.
        ApiException missing = failure(() -> topics.getTopic("java-missing"));
        Problem problem = ApiClient.createDefaultObjectMapper().readValue(missing.getResponseBody(), Problem.class);
        check(missing.getCode() == 404 && problem.getCode() == ErrorCode.NOT_FOUND, problem);
        TopicsApi limited = new TopicsApi(configured(args[0], args[2]));
        ApiException full = failure(() -> limited.putTopic("java", new TopicSettings()));
        problem = ApiClient.createDefaultObjectMapper().readValue(full.getResponseBody(), Problem.class);
        check(problem.getCode() == ErrorCode.QUOTA_EXCEEDED, problem);
        check(full.getResponseHeaders().firstValueAsLong("Retry-After").getAsLong() > 0, full);

        // A long poll that ends empty.
        long start = System.nanoTime();
        check(messages.receive("java-billing", new ReceiveRequest().waitSeconds(1)).getMessages().isEmpty(), "a message");
        check(System.nanoTime() - start > 900_000_000L, "no wait");

        // 5 MB both ways.
        String body = "0123456789".repeat(500_000);
        messages.publish("java-orders", null, null, null, null, null, null, body);
        ReceivedMessage large = receive("java-billing", 1).values().iterator().next();
        check(Files.readString(messages.getMessageBody(large.getId(), null, null, null, null).toPath()).equals(body), "the large body");
        settle("java-billing", item(large.getReceipt(), SettleAction.ACK));
    }
}
