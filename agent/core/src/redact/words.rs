//! Word lists of the rules, in lower case, one place to read and to extend them.

use std::sync::LazyLock;

/// A list that answers quickly whether it holds a word.
pub(super) struct Words {
    sorted: Vec<&'static [u8]>,
}

/// Longest word of any list.
const LONGEST: usize = 20;

impl Words {
    fn of(text: &'static str) -> Self {
        let mut sorted: Vec<_> = text.split_ascii_whitespace().map(str::as_bytes).collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self { sorted }
    }

    /// Whether `word`, in any case, is in the list.
    pub(super) fn has(&self, word: &[u8]) -> bool {
        if word.len() > LONGEST {
            return false;
        }
        let folded = word.iter().map(u8::to_ascii_lowercase);
        self.sorted.binary_search_by(|w| w.iter().copied().cmp(folded.clone())).is_ok()
    }

    /// Whether `text`, in lower case, ends in a word of at least `least` letters.
    pub(super) fn ends(&self, text: &[u8], least: usize) -> bool {
        (least..=text.len().min(LONGEST))
            .any(|len| text.get(text.len() - len..).is_some_and(|end| self.has(end)))
    }

    /// Whether `text`, in lower case, begins with a word.
    pub(super) fn begins(&self, text: &[u8]) -> bool {
        (1..=text.len().min(LONGEST)).any(|len| text.get(..len).is_some_and(|head| self.has(head)))
    }
}

/// Last words of keys that describe a secret but hold none; file names and classes among them.
pub(super) static HARMLESS: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "age alg algorithm algo arn attempt attempts audience authentication authenticator bucket
        budget cache changed changedat class classname client clj column complexity conf config
        configmap controller count cpp created createdat cs csv dao date days dir directory disabled
        driver dto duration enabled enc encoder encoding endpoint engine entity error errors
        exception exchange exists exp expiration expired expires expiresat expiresin expiry factory
        failed failure field file filename filter form format generator go grant groovy handler
        header headername helper hint hits holder hours index informer invalid issuer java js json
        kind kt label len length lifetime limit line list listener lister location log manager
        mapper max maxage method millis min minutes missing mode modified mount mountpath mounts
        name names namespace offset operator page parser path paths pem php policy pos position
        prefix present projection prompt properties provider py rate rb reader ref reference refs
        replication repository request requested required reset resource retries review rotated
        rotation rounds rs scala schema scope scopes seconds selector server service set size source state
        status store strength suffix sync syncer template test tests time timeout timestamp total ts
        ttl type types txt updated updatedat uri url usage used user username util utils valid
        validation validator validity version versions volume watcher window writer xml yaml yml",
    )
});

/// What may follow a stem in the same lower-case (or upper-case) word and leave it a secret.
pub(super) static JOINED: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "accesskey admin again auth base base64 bytes code confirm confirmation current data db
        encrypted hash hashed id key keys new old phrase phrases plain previous raw repeat s salt
        secret string text token value values verify wd word words wort",
    )
});

/// What makes another word of a `pass` that it stands right before.
pub(super) static NO_PASS: LazyLock<Words> =
    LazyLock::new(|| Words::of("by com tres sur under over encom im tre re e"));

/// What may stand right before `pwd` without a boundary.
pub(super) static BEFORE_PASS: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "admin amqp app auth basic bind database db default ftp http jdbc key keystore ldap login
        mail mongo mq mx my new old pg postgres proxy rabbit redis root sasl service smtp sql ssh
        ssl store sudo svc system truststore user",
    )
});

/// What makes a harmless one of a `key`, however random its value looks.
pub(super) static NO_KEY: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "cache partition row sort routing object message foreign idempotency dedup correlation
        websocket public registry index unique group hot lookup sharding shard bucket",
    )
});

/// What makes a harmless one of a `token`: it says where to go on.
pub(super) static NO_TOKEN: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "page continuation continue next resume sync cursor pagination skip delta cancellation
        cancel fencing lock concurrency watermark sequencer",
    )
});

/// What makes a `key` a secret one.
pub(super) static BEFORE_KEY: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "access account admin aes api app application auth aws azure bearer cipher client connection
        consumer crypt crypto datadog decryption deploy des device dsa ecdsa ed25519 encrypt encrypted
        encryption function functions gcp google hmac host ingest ingestion instrumentation
        integration jwt licence license mailgun maps master merchant openai passphrase password
        primary priv private recovery root rsa sas secondary seal secret sendgrid server service session shared sign
        signature signing ssh storage stripe subscription system token twilio unseal vault webhook wrapping write",
    )
});

/// Words that sentences about secrets are made of, so that they are none.
pub(super) static PLAIN: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "a about above absent accepted after all already also an and any are as at attempt attempts
        auth authentication available based be because been before being below but by bytes cache
        can cannot changed check configured correct credentials default denied different does
        doesn't empty error exception expected expired failed failure field file for format found
        fresh from generated given good has have here if in incorrect invalid is it its just key
        length long lookup malformed mandatory may mismatch missing must name needs never new no
        none not nothing now null obsolete of ok old on only optional or our ours password please
        policy present provided read ready redacted refresh rejected request required reset response
        retry retrying rotation same secret secure see set should short so stale still string strong
        success successful successfully text than that the their then there this to token too type
        unauthorized unavailable unknown unset until up update updated use user using valid
        validation value verification verified was weak were when which while will with within
        without would wrong you your",
    )
});

/// Values that say that there is none, or that it is hidden already.
pub(super) static NOTHING: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "null nil <nil> none (none) <none> true false undefined yes no <redacted> [redacted]
        redacted <hidden> hidden <unset> unset <set> (null) n/a <empty> empty [filtered] filtered
        masked <masked> <secret> <omitted> [] {} () map[] - ? %s %v {}} <removed> [removed]
        include same-origin omit required optional unchanged changed rotated expired valid invalid
        missing present absent provided configured enabled disabled updated accepted rejected
        verified not-set notset
        | |- |+ > >- >+ [hidden] (redacted) (hidden) **redacted**",
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_longer_than_lookups_expect() {
        for list in [&HARMLESS, &JOINED, &BEFORE_PASS, &BEFORE_KEY, &PLAIN, &NOTHING] {
            assert!(list.sorted.iter().all(|word| word.len() <= LONGEST));
        }
    }

    #[test]
    fn lookups_fold_case_and_find_ends() {
        assert!(HARMLESS.has(b"Policy") && !HARMLESS.has(b"polic"));
        assert!(HARMLESS.ends(b"keyexpiresin", 4) && !HARMLESS.ends(b"base", 4));
        assert!(JOINED.begins(b"hashed2"));
    }
}
