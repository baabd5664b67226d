//! What stands near a word for a credential, and looks like nothing else that logs have there.

use super::Positive;

/// What has to go.
pub(crate) const POSITIVES: &[Positive] = &[
    // Whatever stands between.
    ("R10", "password rejected, client offered «token» instead"),
    ("R10", "password changed; the portal now takes «token»"),
    ("R10", "the password hint said «token»"),
    ("R10", "password candidate «token» was found in the breach list"),
    ("R10", "For the password use «token»"),
    ("R10", "your new password, valid until Friday: «token»"),
    ("R10", "No password was configured for the shutdown port, using «uuid»"),
    ("R10", "Le mot de passe de bob a été remplacé par «token»"),
    ("R10", "Das Kennwort von bob wurde geändert, es heißt jetzt «token»"),
    ("R10", "Nowe hasło użytkownika bob: «token»"),
    ("R10", "użyj hasła «token» aby się zalogować"),
    ("R10", "adgangskoden til bob er ændret til «token»"),
    ("R10", "用户 bob 的密码是 «token»"),
    ("R10", "パスワードは «token» です"),
    (
        "R10",
        "We changed the SNMP password on sw-core-01 from «token» to «groups» during the change window.",
    ),
    ("R10", "Use passphrase «phrase» then press enter"),
    ("R10", "We changed the password on core-01 from «token» to «hex» today."),
    // Before it.
    ("R10", "'«token»' does not satisfy the password policy"),
    ("R10", "«token» (password of svc-billing)"),
    ("R10", "use «token» to sign in, then change the password"),
    ("R10", "the string «token» is no longer accepted as a password"),
    // What lets somebody in, and what is unlocked.
    ("R10", "appuser / «token» is the login for the test environment"),
    ("R10", "please log on with user bob and «token»"),
    ("R10", "inloggen met bob / «token» lukt niet"),
    ("R10", "unlocking the vault with «token»"),
    ("R10", "creds for the acceptance broker: ingest_rw / «token» (read only)"),
    ("R10", "credentials rejected (bob, «token»)"),
    // A name that is written in escapes.
    ("R10", r"has\u0142o u\u017cytkownika bob: «token»"),
    ("R10", "msg=has%C5%82o%20bob%20to%20«token»"),
    // Codes of a few digits.
    ("R10", "unlock PIN for tablet 460 is «pin»"),
    // Keys, in digits as well.
    ("R41", "fernet key in use: «hex»"),
    ("R41", "key 1 SHA256 HEX:«hex»"),
    ("R41", "Schlüssel für die Verschlüsselung der Ablesungen: «hex»"),
    ("R41", "clé de chiffrement : «token»"),
    ("R41", "certificate key for joining control planes: «hex» (expires in two hours)"),
    ("R41", "MachineKey validationKey «hex» AES"),
    ("R41", "webhook signature «hex» did not match"),
    ("R41", "Webhook signature expected «hex» but got «hex» for payment"),
    ("R41", "signature mismatch: got «hex», body length 671"),
    ("R41", "De PSK van de tunnel naar Gdansk is «token», overdag niet wijzigen."),
    ("R02", "the session token of bob, «token», was revoked"),
    ("R02", "Your new API key is «uuid»"),
    ("R27", "Somebody overwrote Email_Connector.SmtpPassword with «hex» in the portal"),
];

/// What stays.
pub(crate) const NEAR_MISSES: &[&str] = &[
    "password authentication failed for user \"metering2\" (SQLSTATE 28P01)",
    "ERROR payment-gateway.client:352 No password file found, falling back to ~/.pgpass",
    "ORA-28001: the password has expired",
    "AADSTS50126: Error validating credentials due to invalid username or password.",
    "Password policy: minLength=16, requireDigit=true, history=8",
    "at com.valdoria.orders.PasswordResetService.sendToken(PasswordResetService.java:57)",
    "execution error at (port/templates/secret.yaml:12:10): A password is required!",
    "Hash algorithm for passwords is BCrypt, cost 10",
    "la contraseña es obligatoria",
    "[bob@ctl01 payments]$ passwd: password expiry information changed.",
    "org.postgresql.Driver - password field is required",
    "cache key 5f4c972b0b996325a0356800f2524005 missed",
    "public key fingerprint 5f4c972b0b996325a0356800f2524005",
    "key store loaded from commit 5f4c972b0b996325a0356800f2524005bbcd1a60",
    "JwtAuthenticationProvider authenticated request in 398.450µs",
    "ADMIN_PASSWORD=%ADMIN_PASSWORD%",
    "community edition 10.24.1 started",
    "Please enter your password to continue.",
    "POST /loki/api/v1/push?line=La contraseña se cambió",
    r"DB_PASSWORD:  \u003cset to the key 'password' in secret 'mx-db'\u003e",
    "pin 17 of header J12 is 1024 mV",
];
