"""What a secret in a command line looks like: names of options and variables, habits of programs, shapes of tokens.

Holds data, never behaviour: how it is applied is in monitor/redact.py. Every pattern is linear in the length of the text
(no unbounded repetition before a literal that must be found), as whoever starts a program chooses the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# ---- names of options, variables and members that hold a secret: compared in lower case, words divided by "-" ----------
ENDINGS = ("password", "passwd", "passphrase", "passcode", "secret", "token", "apikey", "credential", "credentials", "authkey")
"""The last word of such a name ends with one of these."""
LAST_WORDS = {"pass", "pwd", "pw", "psk", "passin", "passout", "secrets"}
LAST_PAIRS = {
    *(("api", "key"), ("access", "key"), ("secret", "key"), ("auth", "key"), ("account", "key"), ("encryption", "key")),
    *(("master", "key"), ("signing", "key"), ("shared", "key"), ("storage", "key"), ("client", "key"), ("license", "key")),
    *(("redis", "auth"), ("rediscli", "auth"), ("oauth2", "bearer"), ("deploy", "key"), ("service", "key"), ("pre", "key")),
}
HARMLESS_PASS = ("bypass", "compass", "trespass", "surpass", "overpass", "underpass", "encompass", "multipass", "subpass", "firstpass")
"""Words that end with "pass" and hold nothing; any other one does."""
HARMLESS_NAMES = {"pwd", "oldpwd", "pw", "client-key", "license-key", "deploy-key", "service-key"}
"""Whole names that hold a path as a rule: masked only where the value is not one."""
QUESTIONS = {
    *("no", "ask", "prompt", "without", "with", "disable", "enable", "use", "require", "verify", "show", "hide", "allow", "skip"),
    *("has", "need", "needs", "check", "force", "change", "read", "print", "generate", "list", "max", "min", "num", "eos", "bos"),
    *("pad", "unk", "sep", "cls", "stop", "per", "expire", "rotate", "reset", "delete", "remove", "forget", "clear", "lock"),
}
"""First words of options that are switches or numbers (`--no-password`, `--ask-pass`, `--max-token`): no value follows them."""
HARMLESS_VALUES = {
    *(b"", b"true", b"false", b"yes", b"no", b"on", b"off", b"none", b"null", b"nil", b"0", b"1", b"prompt", b"ask", b"stdin"),
    *(b"-", b"env", b"file", b"required", b"optional", b"disabled", b"enabled", b"default", b"undefined", b"never", b"always"),
}
REFERENCES = (b"env:", b"file:", b"fd:", b"id=", b"@/", b"arn:aws:", b"vault:", b"op://", b"secretref:")
"""Values that begin so say where the secret is, not what it is."""

# ---- programs with short options for secrets: by the base name of any word that could be the program -------------------


@dataclass(frozen=True)
class Habit:
    """How one program takes secrets. `glued`: `-pX`; `next`: `-p X`; `userpass`: `-u user:X` or `-uuser:X`, masked behind
    `divider`; `after`: only once this word was seen (docker login); `places`: bare words that are secrets, by number."""

    glued: tuple[bytes, ...] = ()
    next: tuple[bytes, ...] = ()
    userpass: tuple[bytes, ...] = ()
    divider: bytes = b":"
    after: bytes = b""
    places: tuple[int, ...] = ()


def _same(names: str, habit: Habit) -> dict[bytes, Habit]:
    return {name.encode(): habit for name in names.split()}


_MYSQL = "mysql mysqldump mysqladmin mysqlimport mysqlcheck mysqlshow mysqlslap mysqlpump mysqlbinlog mysqlsh mysql_upgrade mariadb mariadb-dump"
_MONGO = "mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop mongofiles"
PROGRAMS: dict[bytes, Habit] = {
    **_same(_MYSQL + " mariadb-admin mariadb-import mariadb-check mariadb-show mycli xtrabackup mariabackup mydumper", Habit(glued=(b"-p",))),
    **_same("curl", Habit(userpass=(b"-u", b"--user", b"-U", b"--proxy-user", b"-E", b"--cert"), next=(b"-b", b"--cookie"))),
    **_same("wget aria2c", Habit(userpass=(b"--user",))),
    **_same("http https httpie xh", Habit(userpass=(b"-a", b"--auth"))),
    **_same("sshpass rdesktop", Habit(glued=(b"-p",), next=(b"-p",))),
    **_same("redis-cli valkey-cli keydb-cli", Habit(glued=(b"-a",), next=(b"-a",))),
    **_same(_MONGO, Habit(glued=(b"-p",), next=(b"-p",))),
    **_same("docker podman nerdctl buildah skopeo helm crane oras az", Habit(glued=(b"-p",), next=(b"-p",), after=b"login")),
    **_same("ldapsearch ldapmodify ldapadd ldapdelete ldapwhoami ldapcompare ldapmodrdn", Habit(glued=(b"-w",), next=(b"-w",))),
    **_same("ldappasswd", Habit(glued=(b"-w", b"-s", b"-a"), next=(b"-w", b"-s", b"-a"))),
    **_same("smbclient rpcclient smbmap smbget smbcacls net winexe smbtree", Habit(userpass=(b"-U", b"--user"), divider=b"%")),
    **_same("sqlcmd bcp osql isql tsql zip unzip zipcloak ipmitool", Habit(glued=(b"-P",), next=(b"-P",))),
    **_same("mosquitto_pub mosquitto_sub mosquitto_rr", Habit(next=(b"-P",))),
    **_same("7z 7za 7zr 7zz", Habit(glued=(b"-p",))),
    **_same("rar unrar", Habit(glued=(b"-hp", b"-p"))),
    **_same("useradd usermod groupadd groupmod hydra", Habit(next=(b"-p",))),
    **_same("snmpget snmpwalk snmpset snmpbulkwalk snmptrap snmpgetnext snmptable", Habit(glued=(b"-c", b"-A", b"-X"), next=(b"-c", b"-A", b"-X"))),
    **_same("xfreerdp xfreerdp3 wlfreerdp", Habit(glued=(b"/p:", b"/gp:"))),
    **_same("lftp", Habit(userpass=(b"-u",), divider=b",")),
    **_same("ncftpput ncftpget ncftp crackmapexec nxc evil-winrm", Habit(next=(b"-p", b"-H"))),
    **_same("sqlplus rman expdp impdp sqlldr", Habit(userpass=(b"",), divider=b"/")),
    **_same("htpasswd", Habit(places=(2,), after=b"-b")),
    **_same("wpa_passphrase", Habit(places=(1,))),
    **_same("mkpasswd", Habit(places=(0,))),
    **_same("openssl", Habit(next=(b"-k", b"-K"), after=b"enc")),
}
FOLLOWED: tuple[tuple[bytes, re.Pattern[bytes]], ...] = (
    (b"aws", re.compile(rb"(?i)(?:^|[._])aws_(?:secret_access_key|session_token)$")),
    (b"nmcli", re.compile(rb"(?i)^(?:[\w-]*\.)?(?:password|psk|wep-key\d?|pin|secret)$")),
    (b"git", re.compile(rb"(?i)\.(?:password|token|secret|extraheader|smtppass)$")),
    (b"npm", re.compile(rb"(?i)(?:_authtoken|_auth|_password)$")),
    (b"yarn", re.compile(rb"(?i)npmauth(?:token|ident)$")),
    (b"composer", re.compile(rb"(?i)^(?:github|gitlab)-(?:oauth|token)\.[\w.-]+$")),
    (b"poetry", re.compile(rb"(?i)^pypi-token\.[\w.-]+$")),
    (b"iwconfig", re.compile(rb"^(?:key|enc)$")),
    (b"vault", re.compile(rb"^login$")),
)
"""(program, word): the word behind this one is a secret, though it is no option."""

# ---- inside a word ----------------------------------------------------------------------------------------------------
_NAME = (
    rb"(?:pass(?:word|wd|phrase|code)|(?<![a-z])pass|(?:ssh|db|user|key|store|root|admin|smtp|ftp)pass|(?<=\w_)pwd|(?<=[_.-])pw|secret(?:[_-]?(?:access[_-]?)?key)?|token|api[_-]?key|apikey|access[_-]?key"
    rb"|account[_-]?key|shared[_-]?access[_-]?key|auth[_-]?key|psk|credentials?)"
)
ASSIGNED = re.compile(
    rb"(?i)(" + _NAME + rb"[\"']?\s{0,4}(?:=(?![=~])|:=)\s{0,4})(\"(?:[^\"\\]|\\.)*+\"?|'[^']*+'?|[^\s\"'&;,|)}\]]++)"
)
"""name = value anywhere: connection strings, URL parameters, mount options, shell assignments."""
MEMBER = re.compile(rb"(?i)(" + _NAME + rb"\\?[\"']\s{0,4}:\s{0,4})(\\?\"(?:[^\"\\]|\\[^\"])*+\\?\"?|'[^']*+'?|[^\s\"',}]++)")
"""A member of a JSON or Python object."""
HEADER = re.compile(
    rb"(?i)((?:proxy-)?authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:(?:basic|bearer|token|digest|negotiate|ntlm|apikey|api-key|key|aws4-hmac-sha256|hawk|splunk)\s{1,4})?)([^\"'\r\n\\]++)"
)
NAMED_HEADER = re.compile(
    rb"(?i)((?:\bset-cookie|\bcookie|\bx-[\w-]{0,40}(?:token|key|secret|auth|password|signature)|\b(?:private|deploy|job)-token|\bapi-?key|\bocp-apim-subscription-key)\s{0,4}:\s{0,4})([^\"'\r\n\\]++)"
)
URL = re.compile(rb"(://[^\s/?#:@\"']{0,256}:)([^\s/?#\"']{1,256})@")
"""scheme://user:password@host. The password goes up to the last @ before the path."""
URL_CUT = re.compile(rb"(://[^\s/?#:@\"']{0,256}:)([^\s/?#\"'@]+)$")
"""The same in a word that was cut behind the password's beginning, before its @. A port is no password."""
URL_TOKEN = re.compile(rb"(https?://)([A-Za-z0-9_.~+/=-]{16,256})(@)")
"""https://token@host"""
PLAIN_USER = re.compile(rb"\A([A-Za-z0-9_.+-]{1,64}:)([^\s:@/]{1,256})(@)(\[[0-9a-fA-F:]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(?=[:/?]|\Z)")
"""user:password@host as a whole word. Whether the parts are that: redact.py."""
NO_USERS = {b"npm", b"jsr", b"workspace", b"pypi", b"gem", b"cargo", b"go", b"file", b"link", b"patch", b"portal", b"git", b"github", b"mailto"}
NO_HOSTS = {b"sha256", b"sha512", b"jar", b"aar", b"pom", b"zip", b"war", b"latest", b"next", b"beta", b"canary"}
SIGNATURE = re.compile(rb"(?i)([?&;](?:sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|code|client_assertion|assertion)=)([^\s&\"'#;]++)")
PEM = re.compile(rb"(-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----)([^-]*+)(?=-----END|\Z)")
_B = rb"(?<![A-Za-z0-9_-])"
TOKENS = re.compile(
    _B + rb"(?:"
    rb"gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|gl(?:pat|dt|rt|cbt|ptt|soat|ft|oas|agent|imt|ffct)-[\w-]{16,255}"
    rb"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{30,40}|ya29\.[\w-]{16,512}|GOCSPX-[\w-]{20,40}|1//0[\w-]{30,255}"
    rb"|xox[abeoprs]-[\w-]{10,255}|xapp-[\w-]{10,255}|[sr]k_(?:live|test)_[0-9A-Za-z]{16,255}|whsec_[A-Za-z0-9+/=]{16,255}"
    rb"|eyJ[\w-]{8,4096}\.[\w-]{8,8192}(?:\.[\w-]{0,4096})?|npm_[A-Za-z0-9]{30,40}|pypi-[\w-]{50,512}|rubygems_[0-9a-f]{40,64}|cio[A-Za-z0-9]{32}(?![A-Za-z0-9])"
    rb"|do[opr]_v1_[0-9a-f]{32,64}|hv[sbr]\.[\w-]{20,255}|[A-Za-z0-9]{14}\.atlasv1\.[\w-]{40,100}|SG\.[\w-]{16,64}\.[\w-]{16,64}"
    rb"|SK[0-9a-f]{32}(?![0-9a-z])|key-[0-9a-z]{32}(?![0-9a-z])|sk-(?:proj-|ant-|or-|svcacct-)?[A-Za-z0-9_-]{20,255}|hf_[A-Za-z0-9]{20,64}"
    rb"|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|dapi[0-9a-f]{32}|glsa_\w{20,64}|glc_[A-Za-z0-9+/=]{20,512}|NRAK-[A-Z0-9]{20,40}|dckr_pat_[\w-]{20,64}|dckr_oat_[\w-]{20,64}"
    rb"|dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{20,128}|AGE-SECRET-KEY-1[0-9A-Z]{40,64}|lin_api_[A-Za-z0-9]{20,64}|ATATT3[\w=-]{20,512}|ATBB[\w=]{20,64}|ATCTT3[\w=-]{20,512}"
    rb"|sq0(?:atp|csp)-[\w-]{20,64}|PMAK-[0-9a-f-]{40,80}|sntrys_[\w+/=-]{20,512}|sntryu_[0-9a-f]{40,80}|pul-[0-9a-f]{40}|EAACEdEose0cBA\w{10,255}|EAA[A-Za-z0-9]{80,255}"
    rb"|\d{8,10}:AA[\w-]{33}|tskey-[\w-]{16,128}|figd_[\w-]{20,64}|ntn_[A-Za-z0-9]{30,64}|secret_[A-Za-z0-9]{43}|xkeysib-[0-9a-f-]{40,128}|LTAI[A-Za-z0-9]{12,24}(?![A-Za-z0-9])"
    rb"|AQ[A-Za-z0-9_-]{3}[A-Za-z0-9_-]{40,80}(?![\w-])|pscale_(?:pw|tkn|oauth)_[\w.=-]{20,64}|fo1_[\w-]{20,64}|fm[12]r?_[\w+/=-]{60,1024}|nvapi-[\w-]{40,128}|gsk_[A-Za-z0-9]{30,64}|r8_[A-Za-z0-9]{30,64}"
    rb"|v2\.local\.[\w-]{20,1024}|[A-Za-z0-9_-]{24}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}(?![\w-])"
    rb")"
)
"""Tokens that say by themselves what they are: forges, clouds, payment, chat, registries, JSON web tokens."""
WEBHOOK = re.compile(rb"(hooks\.slack\.com/(?:services|workflows)/|discord(?:app)?\.com/api/webhooks/|outlook\.office\.com/webhook/|api\.telegram\.org/bot)([\w/:@.-]++)")
FOLLOWED_PROGRAMS = {program for program, _ in FOLLOWED}
