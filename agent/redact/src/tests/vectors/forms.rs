//! Forms of values: what generators and people make, what says in the middle whose it is, and the words,
//! flags and lines around them that version 7 of the rules learnt.

use super::Positive;

/// What has to go.
pub(crate) const POSITIVES: &[Positive] = &[
    // Passwords in groups, phrases, and those chosen again and again.
    ("R10", "user bob was created with initial password «groups»"),
    ("R10", "handler started with admin password «groups» on port 8090"),
    ("R02", "set constant name=Sap.ServiceSecret value=«groups»"),
    ("R10", "the generated root password is «common» and has to be changed"),
    ("R10", "password «common» does not match the stored one"),
    ("R10", "Das Passwort für bob lautet «common»"),
    ("R10", "Passordet er «groups»"),
    ("R10", "La password di bob è «pw»"),
    ("R01", "principal=bob credentials password=«pw»"),
    // Names in other languages.
    ("R01", "bind mot_de_passe=«pw» server=db"),
    ("R01", "bind mdp=«pw» user=bob"),
    ("R01", "bind clave=«pw» usuario=bob"),
    ("R01", "bind haslo=«pw»"),
    ("R01", "bind losenord=«pw»"),
    ("R01", "bind passord=«pw»"),
    ("R01", "bind geheimnis=«pw»"),
    ("R02", "bind zugangsdaten=«pw»"),
    ("R41", "bind schluessel=«token»"),
    ("R41", "bind sleutel=«token»"),
    ("R01", "bind creds=bob:«pw»"),
    ("R41", "hash pepper=«token»"),
    ("R41", "otp_seed=«base32»"),
    // Keys and tokens that are UUIDs, where it is said whose they are.
    ("R02", "push configuration, FCM server key=«uuid» saved"),
    ("R02", "deploy API key «uuid» used"),
    ("R02", "authentication token «uuid» accepted"),
    // What says in the middle, or by its form, whose it is.
    ("R23", "BOT=«telegram»"),
    ("R23", "POST /bot«telegram»/sendMessage"),
    ("R23", "POST /services/«slackhook» 200"),
    ("R23", "calls the function with «azfunc»"),
    ("R23", "terraform stored «atlas»"),
    ("R23", "MAPS=«mapbox»"),
    ("R41", "docker swarm join --token «swarm» db:2377"),
    ("R41", "hash «bcrypt» does not match"),
    ("R41", "bob:«shadow»:19700:0:99999:7:::"),
    ("R41", "stored verifier «scram» for bob"),
    ("R17", "WWW-Authenticate: NTLM «ntlm»"),
    ("R22", "jose.JSONWebKey{Kty:\"EC\", Crv:\"P-256\", D:\"«urltoken»\", Kid:\"x\"}"),
    // Flags, arguments and settings of tools.
    ("R09", "probe [\"redis-cli\" \"-a\" \"«pw»\" \"ping\"] failed"),
    ("R09", "curl -fsSLu bob:«pw» https://db"),
    ("R09", "http --auth bob:«pw» https://db"),
    ("R09", "htpasswd -bB users bob «pw»"),
    ("R09", "htpasswd -nb bob «pw»"),
    ("R09", "tool pull x -u bob -p «groups»"),
    ("R27", "mx-cli set-constant --name Sap.Passphrase --value «common» --env prod"),
    ("R09", "npm config set //db/:_authToken «uuid»"),
    ("R09", "m2ee set_constant Sap.ApiSecret «pw»"),
    ("R09", "m2ee create_admin_user «pw»"),
    ("R09", "rclone obscure «pw»"),
    ("R25", "curl -d grant_type=authorization_code -d code=«uuid» -d client_id=x"),
    // Dumps.
    ("R06", "<Credential user='bob' secret='«hex»'>"),
    ("R06", "[\"password\"]=> string(12) \"«pw»\""),
    // Mendix.
    ("R27", "Overriding constant 'Sap.ApiToken' by environment with value '«pw»'"),
    ("R27", "Login of MxAdmin with «pw» failed"),
    // What a command printed.
    ("R10", "$ reset-it -u admin\nNew value: «pw»"),
    // Lines of a block behind names of several lengths.
    (
        "R21",
        "host1 app[1]: ⟦BEGIN RSA PRIVATE KEY⟧\nh app[22]: «pemline»\nhost333 app[4]: «pemline»\nh app[5]: ⟦END RSA PRIVATE KEY⟧",
    ),
    // A block in a string after a word that announces keys.
    ("R21", "  privateKey: \"⟦BEGIN RSA PRIVATE KEY⟧\\n«pemescaped»\\n⟦END RSA PRIVATE KEY⟧\\n\""),
    ("R23", "agent uses «nral»"),
    // What was never held by a vector before.
    ("R21", "Private-Lines: 2\n«pemline»\n«pemlast»"),
    ("R08", "{\"value\":\"«common»\",\"name\":\"DB_PASSWORD\"}"),
    // SQL.
    ("R37", "INSERT INTO p (name) VALUES ('«apostrophe»')"),
    ("R37", "Query execution of 'SELECT x FROM p WHERE n = '«person»'' took 7302 ms"),
    // People.
    ("R33", "{\"log\":\"tail -1 pay.log\\n«card» DECLINED\"}"),
    ("R35", "{\"customer\":{\"landline\":\"«phoneus»\"}}"),
    ("R35", "Calling customer at «landline»"),
];

/// What has to stay.
pub(crate) const NEAR_MISSES: &[&str] = &[
    "docker login -u bob --password-stdin harbor.example < token.txt",
    "config: {Addr::9443 TokenTTL:11s Password: APIKey: Debug:false}",
    "{\"cookie\":{\"name\":\"XASSESSIONID\",\"secure\":true,\"sameSite\":\"Strict\"}}",
    "external-secrets ERROR goroutine 7 [running]:\nmain.(*TokenCache).Refresh(0xc000636133)",
    "Het wachtwoord is gewijzigd",
    "Das Passwort ist abgelaufen",
    "token bucket data-node-pool-main refilled",
    "secret data-node-pool-main synced",
    "pod data-node-pool-main-7c9d is ready",
    "New value: standard_d4s_v5",
    "New value: 45",
    "tool set --name replicas --value three",
    "tool set --name log.level --value debug --env prod",
    "x-discord-trace-id: 4bf92f3577b34da6a3ce929d0e0e4736",
    "sentry event 4bf92f3577b34da6a3ce929d0e0e4736 sent",
    "GET /services/T10/status 200",
    "mac aa:aa:aa:aa:aa:aa seen",
    "select $1 from t where a = $2",
    "scram-sha-256 authentication is on",
    "bcrypt cost is $2 for 10 users",
    "kid 5d1c8f2e-7a35-4c0e-9a51-0c5d8c1b7f10 of the signing key set",
    "request id 5d1c8f2e-7a35-4c0e-9a51-0c5d8c1b7f10",
    "calling function resize with 3 arguments",
    "sip: 3 registrations",
    "checksum/secret: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "config set maxmemory 4gb",
    "<Session user='bob' state='open'>",
];
