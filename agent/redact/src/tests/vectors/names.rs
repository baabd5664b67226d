//! Values under names: behind signs that are none of the usual ones, under names in camel case and other
//! languages, of tools and logins, and what looks like them.

use super::Positive;

/// What has to go.
pub(crate) const POSITIVES: &[Positive] = &[
    // Signs.
    ("R02", "http POST https://db.example/v1/jobs api_secret==«token»"),
    ("R01", "password ?= «pw»"),
    ("R01", "smtp.auth.password <- «pw»"),
    ("R01", "user.password[0]=«pw»"),
    ("R02", "secret={«token»}"),
    ("R03", "1,\"{\"\"user\"\":\"\"bob\"\",\"\"password\"\":\"\"«pw»\"\"}\",x"),
    ("R01", "username;initial_pwd;team\nbob;«pw»;planning\neve;«pw»;metering"),
    ("R06", "{Username:,Password:«pw»,Auth:,ServerAddress:db,}"),
    ("R01", "password;«pw»"),
    ("R01", "<password value=\"«pw»\"/>"),
    ("R02", "<setting name=\"ApiKey\" serializeAs=\"String\"><value>«token»</value></setting>"),
    ("R01", "&lt;password&gt;«pw»&lt;/password&gt;"),
    ("R03", "{&quot;user&quot;:&quot;bob&quot;,&quot;password&quot;:&quot;«pw»&quot;}"),
    ("R01", "UsernamePasswordToken[bob, «pw»]"),
    ("R02", "Actuator property 'metrics.export.api-key' resolved: «hex»"),
    // Names.
    ("R02", "Schnittstelle, apiSchluessel=«hex», Abruf"),
    ("R02", "connecteur : cle_api=«hex» region=eu"),
    ("R02", "{\"claveApi\":\"«hex»\"}"),
    ("R02", "{\"jeton\":\"«hex»\"}"),
    ("R01", "{\"ww\":\"«pw»\"}"),
    ("R01", "login=bob passw=«pw» host=x"),
    ("R01", "set psk «pw»"),
    ("R02", "activation key: «hex»"),
    ("R02", "AZDO_PAT=«hex»"),
    ("R02", "token(«uuid»)"),
    ("R02", "token[«hex»]"),
    ("R03", "{\"event\":\"otp_sent\",\"otpCode\":\"«pin»\"}"),
    ("R03", "{\"mfa_code\":\"«pin»\"}"),
    ("R03", "{\"twoFactorCode\":\"«pin»\"}"),
    ("R05", "- name: password\n  value: |\n    «pw»"),
    ("R05", "tokens:\n  - «hex»\n  - «hex»"),
    ("R08", "~ env {\n+ name  = \"DB_PASSWORD\"\n+ value = \"«pw»\"\n}"),
    // Tools.
    ("R09", "sqlldr userid=bob/«pw» control=x.ctl"),
    ("R09", "rman target bob/«pw»@DB"),
    ("R09", "connect bob/«pw»@DB"),
    ("R12", "appsvc/«pw»@db.example.nl:1521/XEPDB1"),
    ("R12", "{Oracle:appsvc/«pw»@db:1521/ORCL Pool:5}"),
    ("R12", "{appsvc:«pw»@tcp(db:3306)/orders 5}"),
    ("R11", "{Scheme:amqp Opaque: User:appsvc:«pw» Host:mq:5672 Path:/orders RawPath:}"),
    ("R09", "mc admin user add reads bob «token»"),
    ("R41", "consul agent -encrypt «b64» -data-dir /x"),
    ("R09", "az sql server create -n x -u bob -p «pw» -l y"),
    ("R09", "samba-tool user create bob «pw»"),
    ("R09", "radtest bob «pw» radius.example 0 «pw»"),
    ("R09", "ldappasswd -x -D cn=admin -s «pw»"),
    ("R09", "sqlpackage /Action:Publish /tu:sa /tp:«pw»"),
    ("R01", "ftpd[7]: command: USER bob; command: PASS «pw»; 530 Login incorrect"),
    // Logins.
    ("R25", "Unexpected state parameter state=«uuid» in callback of provider x"),
    ("R25", "oauth2 state mismatch: expected «uuid», got «uuid»"),
    ("R25", "Exchanging authorization code «uuid» for tokens"),
    ("R25", "Autorisierungscode «hex» ist abgelaufen"),
    ("R24", "Cookie jar: AUTH_SESSION_ID=«uuid»; x=1"),
    ("R24", "session with JSESSIONID.node1=«token» from the trace"),
    // People.
    ("R35", "Bel Bob terug op «landline» over de schade"),
];

/// What has to stay.
pub(crate) const NEAR_MISSES: &[&str] = &[
    "if token == other || key == None {",
    "for password in passwords; do",
    "PASSWORD_HASHER=argon2",
    "{\"admin_password\":{\"sensitive\":true,\"type\":\"string\"},\"serial\":77}",
    "{\"credentialRules\":{\"password\":{\"length\":{\"min\":14},\"digits\":1,\"reuse\":false}}}",
    "redis: {auth: {enabled: true, tls: false}}",
    "{\"msg\":\"existingSecretPasswordKey: redis-password\",\"v\":1}",
    "aws secretsmanager describe-secret --secret-id port/db --query x",
    "- name: MX_LOG_LEVEL\n  value: INFO",
    "connect to the broker at kafka/24 and tcp/443",
    "git clone repo/branch && exp 2/3",
    "terraform apply state=619707a9-885c-4ccd-abe0-cf0d04807999 done",
    "the oracle_api=v2 and particle_count=12",
    "Task tasks.refresh_token[619707a9-885c-4ccd-abe0-cf0d04807999] succeeded",
    "Image ID: registry.example.com/app@sha256:38085c3fd8bf65c850fa36e5ffa1d41daaf123741ef4c852387a664db567a218",
    "id;password;address_line2;postcode",
    "a &lt; b &amp;&amp; c &gt; d",
    "docker run -u 1000:1000 -p 8080:80 app",
];
