//! Words that say what stands near them.

use std::sync::LazyLock;

use crate::words::Words;

/// Words before a thing that say that it is none to hide: a name, a number, a hash of something.
pub(super) static NAMES: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "user users username account accounts client host hosts node pod container server realm tenant
        namespace service database db schema table column field property entity module class method
        function file files template theme device tablet printer project group role team member
        customer order ticket invoice issue incident case job task run build release branch commit
        revision rev version policy rule profile id ids uid guid uuid number nr no kid jti trace
        span request correlation session transaction batch row line step record event message image
        digest hash sha sha1 sha256 md5 checksum etag fingerprint thumbprint serial port zone region
        bucket cluster queue topic key-id environment env thread worker by at on from against via
        through gebruiker gebruikersnaam klant versie regel benutzer benutzername konto kunde
        rechner utilisateur compte usuario cuenta cliente utente konta error code status",
    )
});

/// Words right before a value that could be an identifier as well.
pub(super) static TELLS: LazyLock<Words> = LazyLock::new(|| {
    Words::of(
        "is was be now using to with value generated tried typed entered last / = -> => as into by naar zu auf durch door par por con
        met mit ist est es lautet luidt heißt brzmi su type nu jetzt désormais nun ahora agora ora
        becomes became nieuw nouveau ser",
    )
});

/// What words for a key end in.
pub(super) const KEYS: &str = "key sleutel schlüssel schluessel nyckel nøgle nøkkel clé clef clave chave chiave klucz klíč ключ \
    avain anahtar";

/// What speaks of ciphers, in the languages that keys are told in: hexadecimal digits near it are no hash.
pub(super) const CIPHERS: &str = "crypt cipher schlüssel sleutel chiffr cifra szyfr hmac aes signing unseal kms vault master \
    secret private api hex: recovery instrumentation connection salt seed fernet otp webhook krypter \
    psk hachage community";

/// What makes a key one of a thing and no secret, however random it looks.
pub(super) const HARMLESS_KEYS: &str = "cache partition row primary foreign public idempotency dedup object message routing lookup sort \
    shard fingerprint digest commit etag trace duplicate unique index blob s3 redis thumbprint \
    checksum asset gpg pgp schlüsselwort keyword registry group range";
