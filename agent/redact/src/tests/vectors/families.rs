//! Families of texts: what a command prints, what stands beside the name of a field, what a sentence says
//! before or after the word, flags of any tool, and what looks like them.

use super::Positive;

/// What has to go.
pub(crate) const POSITIVES: &[Positive] = &[
    // Beside the name of a field, in the same object.
    ("R03", "{\"field\":\"password\",\"old\":\"«pw»\",\"new\":\"«pw»\"}"),
    ("R08", "{\"name\":\"API_TOKEN\",\"slotSetting\":false,\"value\":\"«token»\"}"),
    ("R08", "{\"value\":\"«pw»\",\"sensitive\":true,\"name\":\"DB_PASSWORD\"}"),
    (
        "R08",
        "  {\n    \"name\": \"DB_PASSWORD\",\n    \"slotSetting\": false,\n    \"value\": \"«pw»\"\n  }",
    ),
    ("R08", "env.name=DB_PASSWORD env.value=«pw»"),
    ("R08", "env: [{API_TOKEN «token» nil}]"),
    ("R07", "REDISCLI_AUTH: «pw»"),
    ("R01", "on field 'password': rejected value [«pw»]; codes"),
    ("R01", "value '«pw»' of property 'smtp.password' is too short"),
    ("R06", "Config { redis_password: Some(\"«pw»\"), verbose: true }"),
    ("R20", "{\"auth\":\"bob:«pw»\"}"),
    // What a command prints.
    ("R02", "bob@host:~$ app show-secret\n«token»"),
    ("R20", "az acr credential show -n x --query \"passwords[0].value\"\n«token»"),
    ("R13", "az storage account keys list -n x -o tsv\n«token»"),
    ("R10", "vault kv get -field=password secret/db\n«pw»"),
    // Flags and words of tools.
    ("R09", "etcdctl --user root:«pw» get /x"),
    ("R09", "lftp -u bob,«pw» sftp://db"),
    ("R09", "podman login r -u='bob' -p='«pw»'"),
    ("R09", "xfreerdp /u:bob /p:«pw» /v:db"),
    ("R09", "[\"mysql\",\"-uroot\",\"-p«pw»\"]"),
    ("R09", "[gpg, --batch, --passphrase, «pw», -d]"),
    ("R09", "127.0.0.1:6379> AUTH «pw»"),
    ("R09", "ACL SETUSER bob on >«pw» ~*"),
    ("R09", "echo '«pw»' | cryptsetup luksOpen /dev/x y -"),
    ("R09", "mc alias set x https://db bob «token»"),
    // Sentences.
    ("R10", "bob gave him «pw» as password"),
    ("R10", "keystore was tampered with, or password was incorrect (tried \"«pw»\")"),
    ("R10", "bob typed \"«pw»\" in the password field"),
    ("R10", "The root password was set. It's \"«pw»\""),
    ("R10", "Uw wachtwoord is gewijzigd in: «pw»"),
    ("R02", "the secret of the client was rotated from «token» to «token»"),
    ("R10", "Your one-time code: «pin»."),
    ("R10", "PIN changed from «pin» to «pin»"),
    // A table of keys and values.
    ("R01", "| password | «pw» |"),
];

/// What has to stay.
pub(crate) const NEAR_MISSES: &[&str] = &[
    "~ # mysql -u flyway -p\"$DB_PASSWORD\" -e 'show tables'",
    "DB_PASSWORD=$(cat /run/secrets/db)\nsecret/policy-sync created",
    "bash-5.1# pg_restore --no-password --jobs=9 dump.bin",
    "azurerm_key_vault_secret.db_password: Creation complete after 6s",
    "kubectl create secret generic x --from-file=password=/tmp/pw.txt",
    "rest.Config{Host:\"db\", Password:\"--- REDACTED ---\"}",
    "ConnectionBus_Retrieve: An error has occurred. [User 'bob' with session id '[masked]' and roles 'Adjuster']",
    "{\"secretName\":\"x\",\"secretKey\":\"db-password\"}",
    "action=change_password uid=5562 result=ok",
    "token_policies: [claims-read]",
    "Please use the following password to proceed to installation:",
    "grep -c x brp-2026-12-14.log",
    "docker run -p 8080:8080 -u 1000:1000 app",
    "password authentication failed: line 89: \"host all all all scram-sha-256\"",
];
