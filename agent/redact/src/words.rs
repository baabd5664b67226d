//! Word lists of the rules, in lower case, one place to read and to extend them.

use std::sync::LazyLock;

/// A list that answers quickly whether it holds a word: a hash table over the letters from the last
/// to the first, so that one pass finds every word that a text ends in.
pub(super) struct Words {
    /// Open addressing, at most a quarter full.
    slots: Vec<&'static [u8]>,
    /// Bit `n`: there is a word of `n` letters.
    lengths: u32,
}

/// Longest word of any list (tested); lengths are bits of a `u32`.
const LONGEST: usize = 20;

/// A hash of nothing, and what one more letter makes of it.
const START: u32 = 0x811c_9dc5;

const fn more(hash: u32, letter: u8) -> u32 {
    (hash ^ letter.to_ascii_lowercase() as u32).wrapping_mul(0x0100_0193)
}

impl Words {
    pub(super) fn of(text: &'static str) -> Self {
        let words: Vec<_> = text.split_ascii_whitespace().map(str::as_bytes).collect();
        let size = (words.len() * 4).next_power_of_two();
        let mut list = Self { slots: vec![&[]; size], lengths: 0 };
        for word in words {
            list.lengths |= 1 << word.len();
            let mut slot = list.first_slot(word.iter().rev().fold(START, |h, &b| more(h, b)));
            // Three of four slots are free.
            while let Some(taken) = list.slots.get_mut(slot) {
                if taken.is_empty() {
                    *taken = word;
                    break;
                }
                slot = (slot + 1) % size;
            }
        }
        list
    }

    fn first_slot(&self, hash: u32) -> usize {
        (hash ^ (hash >> 15)) as usize & (self.slots.len() - 1)
    }

    /// Whether `word`, in any case, with this hash, is in the list.
    fn holds(&self, hash: u32, word: &[u8]) -> bool {
        let mut slot = self.first_slot(hash);
        while let Some(listed) = self.slots.get(slot).filter(|listed| !listed.is_empty()) {
            if listed.eq_ignore_ascii_case(word) {
                return true;
            }
            slot = (slot + 1) % self.slots.len();
        }
        false
    }

    /// Whether `word`, in any case, is in the list.
    pub(super) fn has(&self, word: &[u8]) -> bool {
        word.len() <= LONGEST
            && self.lengths >> word.len() & 1 == 1
            && self.holds(word.iter().rev().fold(START, |h, &b| more(h, b)), word)
    }

    /// Whether `text` ends in a word of at least `least` letters.
    pub(super) fn ends(&self, text: &[u8], least: usize) -> bool {
        let mut hash = START;
        for (index, &letter) in text.iter().rev().take(LONGEST).enumerate() {
            hash = more(hash, letter);
            let len = index + 1;
            let may = len >= least && self.lengths >> len & 1 == 1;
            if may && text.get(text.len() - len..).is_some_and(|end| self.holds(hash, end)) {
                return true;
            }
        }
        false
    }

    /// Whether `text` begins with a word.
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
        mapper hasher hashers max maxage method millis min minutes missing mode modified mount mountpath mounts
        name names namespace offset operator page parser path paths pem php policies policy pos position
        prefix present projection prompt properties provider py rate rb reader ref reference refs
        replication repository request requested required reset resource retries review rotated
        rotation rounds rs scala schema scope scopes seconds selector server service set size source state stdin
        status store strength suffix sync syncer template test tests time timeout timestamp total ts
        ttl type types txt updated updatedat uri url usage used user username util utils valid
        validation validator validity version versions volume watcher window writer xml yaml yml history
        interval leeway methods ms period policytext skew supported threshold",
    )
});

/// What may follow a stem in the same lower-case (or upper-case) word and leave it a secret.
pub(super) static JOINED: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "accesskey admin again auth base base64 box bytes code confirm confirmation current data db
        encrypted hash hashed id key keys new old phrase phrases plain previous raw repeat s salt
        secret string text token value values verify wd word words wort wrd",
    )
});

/// What makes another word of a `pass` that it stands right before.
pub(super) static NO_PASS: LazyLock<Words> =
    LazyLock::new(|| Words::of("ask by com tres sur under over encom im tre re e"));

/// What may stand right before `pwd` without a boundary.
pub(super) static BEFORE_PASS: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "admin amqp app auth basic bind client database db default ftp http jdbc key keystore ldap login
        mail mongo mq mx my new old pg postgres proxy rabbit redis root sasl service smtp sql ssh
        ssl store sudo svc system truststore user",
    )
});

/// What makes a harmless one of a `key`, however random its value looks.
pub(super) static NO_KEY: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "cache partition row sort routing object message foreign idempotency dedup correlation
        websocket public registry index unique group hot lookup sharding shard bucket last start next page
        cursor evaluated paging scroll order etag gpg pgp range asset translation locale issue project entity
        composite dedupe trace span request",
    )
});

/// What makes a harmless one of a `token`: it says where to go on.
pub(super) static NO_TOKEN: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "page continuation continue next resume sync cursor pagination skip delta cancellation
        cancel fencing lock concurrency watermark sequencer start scroll paging iterator since bookmark
        position offset search batch sequence prev previous tracking",
    )
});

/// What makes a `key` a secret one.
pub(super) static BEFORE_KEY: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "access account activation admin aes api app application auth aws azure bearer cipher client
        connection consumer crypt crypto datadog decryption deploy des device dsa ecdsa ed25519 encrypt encrypted
        encryption function functions gcp google hmac host ingest ingestion instrumentation
        integration jwt licence license mailgun maps master merchant openai passphrase password
        preshared primary priv private product recovery registration root rsa sas secondary seal secret security sendgrid server service session shared sign
        signature signing ssh storage stripe subscription system token twilio unseal vault webhook wrapping write
        enroll enrollment fernet gossip join replicaset sdk setup",
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
        without would wrong you your
        gewijzigd verlopen ongeldig onjuist verplicht ingesteld vergeten aangepast verstuurd geweigerd geblokkeerd
        verzonden nodig leeg fout niet geen abgelaufen ungültig falsch geändert erforderlich leer nicht gesperrt
        incorrecto incorrecta inválida caducada cambiada requerida invalide expiré incorrecte requis modifié
        obligatoire vide scaduta errata errada inválido expirada wymagane nieprawidłowe felaktigt ogiltigt",
    )
});

/// Parts of the names that software gives its objects, so that `web-app-config` is no phrase.
pub(super) static PARTS: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "access account admin agent api app apps application auth azure backend backup bot broker bucket build
        cache cert certs check client cloud cluster code config connect connection connector container
        control controller core cred db pg credential credentials creds cron data database default demo deploy
        deployment dev edge email env event events example exporter external file files front frontend
        gateway group handler health host http https image initial ingress init internal issuer job jobs
        key keys kube lease list load local lock login logs mail main manager master mendix metrics mobile
        monitor monitoring mount name namespace net network node notes null object operator ops order
        orders pass password path payment payments plan plane platform pod policy pool portal postgres
        primary private prod production profile project provider proxy public pull queue read reader
        redis registry release remote replica report repo request reset role root rotation router rule
        runner runtime save scheduler schema secret secrets sender server service session set shared site
        source stage staging state static status storage store stream sync system table task team temp
        template test text time tls token tokens tool tools type update url user users vault version
        view volume web webhook worker write writer zone",
    )
});

/// Passwords that are chosen again and again, and are no word of a sentence about one.
pub(super) static COMMON: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "changeme changeit letmein qwerty qwertyuiop qweasdzxc asdfgh asdfghjkl zxcvbnm qazwsx iloveyou welkom
        welcome toor nimda hunter passw0rd welkom01 monkey dragon sunshine princess football superman batman
        trustno1 geheim hallo azerty motdepasse postgres guest abc123 123456 12345678 123456789 000000 111111 hunter2 nimda toor admin123 root123 test123
        supersecret topsecret sesame opensesame s3cret s3cr3t p4ssw0rd pa55word password1 password123 welcome1 welcome123 letmein1 letmein123
        changeme1 changeme123 changethis change_me change-me qwerty123 qwertz 1q2w3e4r 1qaz2wsx zaq12wsx asdf1234 passport1
        ninja mustang liverpool starwars pokemon
        secret123 mysecret mypassword admin1234 administrator1 raspberry foobar foobaz barfoo hackme iloveu loveme
        sommer winter zomer fruehling lente voetbal feyenoord hallo123 lol123",
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
        bcrypt scrypt argon2 argon2i argon2id pbkdf2 md5 sha-256 sha-512 sha256 sha512 scram-sha-256 chauthtok
        | |- |+ > >- >+ [hidden] (redacted) (hidden) **redacted**",
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_longer_than_lookups_expect() {
        for list in [&HARMLESS, &JOINED, &BEFORE_PASS, &BEFORE_KEY, &PARTS, &PLAIN, &NOTHING] {
            assert!(list.slots.iter().all(|word| word.len() <= LONGEST));
            assert!(list.slots.iter().all(|word| word.is_empty() || list.has(word)));
        }
    }

    #[test]
    fn lookups_fold_case_and_find_ends() {
        assert!(HARMLESS.has(b"Policy") && !HARMLESS.has(b"polic"));
        assert!(HARMLESS.ends(b"keyexpiresin", 4) && !HARMLESS.ends(b"base", 4));
        assert!(JOINED.begins(b"hashed2"));
    }
}
