//! Which tools take a secret, behind which flag or in which place.

/// What an argument of a tool holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A password.
    Password,
    /// `user:password`.
    Pair,
    /// `user%password`.
    PercentPair,
    /// `name=value; …`.
    Cookies,
}

/// A flag of some tools.
pub(super) struct Flag {
    pub(super) tools: &'static [&'static str],
    /// Only after this subcommand.
    pub(super) after: Option<&'static str>,
    pub(super) names: &'static [&'static str],
    pub(super) holds: Holds,
    /// The value may stand right behind a flag of one letter.
    pub(super) joined: bool,
}

const fn flag(
    tools: &'static [&'static str],
    names: &'static [&'static str],
    holds: Holds,
    joined: bool,
) -> Flag {
    Flag { tools, after: None, names, holds, joined }
}

pub(super) const FLAGS: &[Flag] = &[
    flag(&["curl"], &["-u", "--user", "-U", "--proxy-user"], Holds::Pair, true),
    flag(&["curl"], &["-b", "--cookie"], Holds::Cookies, true),
    flag(
        &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mysqlcheck",
            "mysqlshow",
            "mysqlslap",
            "mysqlpump",
            "mysqlsh",
            "mysqlbinlog",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
            "mariadb-import",
        ],
        &["-p"],
        Holds::Password,
        true,
    ),
    flag(&["sqlcmd", "bcp", "sqlpackage"], &["-P"], Holds::Password, true),
    flag(&["curl"], &["-E", "--cert"], Holds::Pair, false),
    flag(&["redis-cli", "valkey-cli"], &["-a"], Holds::Password, false),
    flag(
        &[
            "sshpass",
            "mongo",
            "mongosh",
            "mongodump",
            "mongorestore",
            "mongoimport",
            "mongoexport",
            "mongostat",
            "mongotop",
        ],
        &["-p"],
        Holds::Password,
        true,
    ),
    flag(
        &["ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldapwhoami", "ldappasswd"],
        &["-w"],
        Holds::Password,
        true,
    ),
    flag(&["ansible", "http", "https", "xh"], &["-a", "--auth"], Holds::Pair, false),
    flag(&["openssl"], &["-k", "-K"], Holds::Password, false),
    flag(&["zip", "unzip", "mosquitto_pub", "mosquitto_sub"], &["-P"], Holds::Password, false),
    flag(&["7z", "7za", "rar"], &["-p"], Holds::Password, true),
    flag(&["rar"], &["-hp"], Holds::Password, true),
    flag(&["useradd", "usermod"], &["-p"], Holds::Password, false),
    flag(&["ssh-keygen"], &["-N", "-P"], Holds::Password, false),
    flag(&["smbclient", "rpcclient"], &["-U"], Holds::PercentPair, false),
    flag(&["ipmitool", "fence_ipmilan"], &["-P", "-p"], Holds::Password, true),
    flag(
        &["snmpget", "snmpwalk", "snmpset", "snmpbulkwalk", "snmpbulkget", "snmptrap", "snmptable"],
        &["-A", "-X", "-c"],
        Holds::Password,
        false,
    ),
    flag(&["cryptsetup"], &["--key"], Holds::Password, false),
    flag(&["plink", "pscp", "psftp", "kitty"], &["-pw"], Holds::Password, false),
    flag(
        &["rdesktop", "cqlsh", "evil-winrm", "smbmap", "psexec", "winexe"],
        &["-p"],
        Holds::Password,
        false,
    ),
    flag(&["tsql", "isql", "freebcp"], &["-P"], Holds::Password, false),
    flag(&["racadm"], &["-p"], Holds::Password, false),
    flag(&["rsync", "wbinfo"], &["-U"], Holds::PercentPair, false),
    flag(&["etcdctl"], &["--user"], Holds::Pair, false),
    flag(&["mbsync", "swaks"], &["-ap", "--auth-password"], Holds::Password, false),
    flag(&["consul", "nomad", "serf"], &["-encrypt"], Holds::Password, true),
    flag(&["ldappasswd"], &["-s", "-a"], Holds::Password, false),
    flag(&["gitlab-runner"], &["-r"], Holds::Password, false),
    flag(&["doctl", "glab"], &["-t"], Holds::Password, false),
    flag(&["signtool"], &["/p"], Holds::Password, false),
    flag(&["certutil", "beeline"], &["-p"], Holds::Password, false),
    flag(&["pk12util"], &["-W", "-K"], Holds::Password, false),
    flag(&["kadmin", "kadmin.local"], &["-w", "-pw"], Holds::Password, false),
    flag(&["hdparm"], &["--security-set-pass", "--security-unlock"], Holds::Password, false),
    flag(&["influx"], &["-password"], Holds::Password, false),
    Flag {
        tools: &["az"],
        after: Some("vm"),
        names: &["-p"],
        holds: Holds::Password,
        joined: false,
    },
    Flag {
        tools: &["az"],
        after: Some("server"),
        names: &["-p"],
        holds: Holds::Password,
        joined: false,
    },
    Flag {
        tools: &["az"],
        after: Some("secret"),
        names: &["--value"],
        holds: Holds::Password,
        joined: false,
    },
    Flag {
        tools: &["az"],
        after: Some("ad"),
        names: &["-p"],
        holds: Holds::Password,
        joined: false,
    },
    Flag {
        tools: &["gh"],
        after: Some("secret"),
        names: &["--body", "-b"],
        holds: Holds::Password,
        joined: true,
    },
    Flag {
        tools: &["dotnet"],
        after: Some("nuget"),
        names: &["-k"],
        holds: Holds::Password,
        joined: false,
    },
    Flag {
        tools: &[
            "docker", "podman", "helm", "skopeo", "oras", "buildah", "nerdctl", "crane", "az",
            "oc", "cf", "argocd",
        ],
        after: Some("login"),
        names: &["-p"],
        holds: Holds::Password,
        joined: false,
    },
];

/// Tools that take a secret without a flag: after this subcommand, so many words on.
pub(super) const WORDS: &[(&str, &str, usize)] = &[
    ("vault", "login", 1),
    ("vault", "unseal", 1),
    ("redis-cli", "AUTH", 1),
    ("redis-cli", "auth", 1),
    ("rabbitmqctl", "add_user", 2),
    ("rabbitmqctl", "change_password", 2),
    ("htpasswd", "", 3),
    ("net", "use", 1),
    ("net", "user", 2),
    ("cargo", "login", 1),
    ("nuget", "push", 2),
    ("rclone", "obscure", 1),
    ("openssl", "passwd", 1),
    ("ansible-vault", "encrypt_string", 1),
    ("mc", "set", 4),
    ("mc", "add", 4),
    ("rabbitmqctl", "authenticate_user", 2),
    ("wpa_passphrase", "", 2),
    ("cf", "auth", 2),
    ("mc", "user", 4),
    ("mosquitto_passwd", "-b", 3),
    ("samba-tool", "create", 2),
    ("vault", "lookup", 1),
    ("vault", "renew", 1),
    ("vault", "revoke", 1),
    ("snyk", "auth", 1),
    ("radtest", "", 2),
    ("radtest", "", 5),
    ("consul", "-install", 1),
    ("consul", "-use", 1),
    ("consul", "-remove", 1),
];
