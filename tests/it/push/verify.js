// Reads requests as a receiver in JavaScript does: with the packages `standardwebhooks` and `cloudevents`, and signatures of
// the key set (`v1a`, tokens) with the crypto of Node.js.
//
// Run by sign.rs. Input is {"secrets": [...], "jwks": {...}, "requests": [{"headers", "body_base64"}]}; output is one object
// for each request.
const crypto = require("node:crypto");
const { HTTP } = require("cloudevents");
const { Webhook } = require("standardwebhooks");

function verified(secret, headers, body, options) {
    try {
        return { is: new Webhook(secret).verify(body, headers, options) };
    } catch (error) {
        return { error: error.constructor.name };
    }
}

function shown(data) {
    return Buffer.isBuffer(data) ? { base64: data.toString("base64") } : data;
}

// A receiver keeps bytes of what is no text.
function event(headers, body) {
    const type = headers["content-type"];
    if (!type.startsWith("application/cloudevents") && !headers["ce-id"]) return null;
    const isText = type.includes("json") || type.startsWith("text/");
    const read = HTTP.toEvent({ headers, body: isText ? body.toString() : body });
    return [read.id, shown(read.data)];
}

function verifiedByKey(jwk, headers, body) {
    const key = crypto.createPublicKey({ key: jwk, format: "jwk" });
    const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
    const signatures = headers["webhook-signature"].split(" ").filter((one) => one.startsWith("v1a,"));
    return signatures.map((one) => crypto.verify(null, signed, key, Buffer.from(one.slice(4), "base64")));
}

function token(jwk, headers) {
    const [head, claims, signature] = headers["authorization"].replace("Bearer ", "").split(".");
    const key = crypto.createPublicKey({ key: jwk, format: "jwk" });
    const isValid = crypto.verify(null, Buffer.from(`${head}.${claims}`), key, Buffer.from(signature, "base64url"));
    const read = (part) => JSON.parse(Buffer.from(part, "base64url"));
    return { isValid, kid: read(head).kid, claims: read(claims) };
}

const given = JSON.parse(require("node:fs").readFileSync(0));
const jwk = given.jwks.keys[0];
const answers = given.requests.map((request) => {
    const { headers } = request;
    const body = Buffer.from(request.body_base64, "base64");
    return {
        parsed: given.secrets.map((secret) => verified(secret, headers, body)),
        unparsed: given.secrets.map((secret) => verified(secret, headers, body, { jsonParse: false })),
        event: event(headers, body),
        key: verifiedByKey(jwk, headers, body),
        token: token(jwk, headers),
    };
});
process.stdout.write(JSON.stringify(answers));
