"""A pleasant client of Cursus: publish, receive, a consumer loop, and a verifier of webhooks.

The generated client of every other operation is the package `cursus_client`; its classes hang at `Client.topics`,
`Client.subscriptions` and so on, with the retries and errors of this one.
"""

from .client import Client, Message, Problem
from .consumer import Consumer, DeadLetter, Retry
from .webhook import Delivery, WebhookVerificationError, verify

__all__ = [
    "Client", "Consumer", "DeadLetter", "Delivery", "Message", "Problem", "Retry", "WebhookVerificationError", "verify",
]
