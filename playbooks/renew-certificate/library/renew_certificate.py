#!/usr/bin/python
"""Has the ACME client that a certificate belongs to renew it, and proves that it did.

DOCUMENTATION: see the playbook beside it. Everything is asked before the client is started, and the
client alone decides whether a certificate is due: authorities limit how many they issue, so nothing
is ever forced. Standard library and ansible.module_utils only; certificates are read by openssl(1).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import hashlib
import os
import pwd
import re
import shlex
import shutil
import signal
import ssl
import stat
import struct
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule

#: Longest that the client, another command, and another run of the client may take, in seconds.
CLIENT_LIMIT, TIME_LIMIT, WAIT_LIMIT = 480, 30, 60
#: Where certbot keeps what it renews, and locks what it works in (its --help, `paths`).
RENEWALS = "/etc/letsencrypt/renewal"
CERTBOT_PLACES = ("/etc/letsencrypt", "/var/lib/letsencrypt", "/var/log/letsencrypt")
CERTBOT_LOCK = ".certbot.lock"
#: Names that dehydrated gives to what it makes; with a number before the suffix where a link leads.
DEHYDRATED_NAMES = re.compile(r"(?:fullchain|cert)(?:-\d+)?\.pem")
#: That this is a container, whose clock is that of the machine around it.
CONTAINER = ("/run/systemd/container", "/run/.containerenv", "/.dockerenv")
#: The clock counts as synchronised below this, in seconds, as systemd has it (timedated.c).
UNSYNCED = 16.0
#: Larger files are no certificates. Free on each filesystem that the client writes to.
MOST_BYTES, ROOM = 1024 * 1024, 1024 * 1024
#: Of what the client said, for a human.
WORDS = 700
BLOCK = re.compile(
    r"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.+?"
    r"-----END (?:TRUSTED |X509 )?CERTIFICATE-----",
    re.DOTALL,
)
KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"


class NeedsHumanError(Exception):
    """Why it is not done, with what a human would do."""


class Certificate:
    """What a file holds at one moment; times are seconds since 1970."""

    def __init__(self, digest, begins, ends):
        #: Of the first, the file's own.
        self.digest, self.begins = digest, begins
        #: When the first of all certificates in the file ends, as the check has it.
        self.ends = ends


class Client:
    """Who renews a certificate."""

    def __init__(self, name, argv, key, places, find_other=lambda: "", look=""):
        self.name, self.argv = name, argv
        #: The certificate's key; empty: it is not known.
        self.key = key
        #: Directories that it writes to.
        self.places = places
        #: What another run of it that is alive holds, in words; empty: there is none.
        self.find_other = find_other
        #: The command that shows a human what it knows of the certificate.
        self.look = look


class Outcome:
    """How it ended. `reread`: servers should read the file again."""

    def __init__(self, msg, *, changed=False, reread=False, needs_human=False):
        self.msg, self.changed = msg, changed
        self.reread, self.needs_human = reread, needs_human


def make_environment():
    """The same whoever runs this: nothing of Ansible's reaches the client."""
    return {
        "PATH": PATH,
        "HOME": pwd.getpwuid(os.geteuid()).pw_dir,
        "LC_ALL": "C.UTF-8",
    }


def run(argv, limit=TIME_LIMIT, text=""):
    """Exit code, and everything that was printed. None: it was ended after `limit` seconds.

    What it leaves running may keep its output open, so nothing waits for the end of that.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
        given.write(text.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                argv,
                stdin=given,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env=make_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise NeedsHumanError(f"cannot run {argv[0]}: {error.strerror}") from None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            end_group(process)
        printed.seek(0)
        return code, printed.read().decode(errors="replace")


def end_group(process):
    """Gently first: clients then take their locks with them."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def find_program(name):
    return shutil.which(name, path=PATH)


# Certificates


def read_text(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise NeedsHumanError(f"cannot read {path}: {error.strerror}") from None
    with open(fd, encoding="latin-1") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NeedsHumanError(f"{path} is no file: see ls -l {path}")
        return file.read(MOST_BYTES)


def read_certificate(path):
    blocks = BLOCK.findall(read_text(path))
    if not blocks:
        raise NeedsHumanError(f"{path} holds no certificate in PEM: see file -L {path}")
    times = [read_times(block, path) for block in blocks]
    digest = hashlib.sha256(blocks[0].encode()).hexdigest()
    return Certificate(digest, times[0][0], min(ends for _, ends in times))


def read_times(block, path):
    """When a certificate begins and ends."""
    code, printed = run(["openssl", "x509", "-noout", "-startdate", "-enddate"], text=block)
    found = dict(re.findall(r"^not(Before|After)=(.+)$", printed, re.MULTILINE))
    if code != 0 or len(found) != 2:
        raise NeedsHumanError(f"a certificate in {path} cannot be read: {printed.strip()[-200:]}")
    begins, ends = (ssl.cert_time_to_seconds(found[name]) for name in ("Before", "After"))
    return begins, ends


def find_key(path, given):
    """Where a certificate's key is; empty: nothing says so."""
    if given:
        return given
    if KEY.search(read_text(path)):
        return path
    beside = os.path.join(os.path.dirname(path), "privkey.pem")
    return beside if os.path.exists(beside) else ""


def explain_key(path, key):
    """Why they do not belong together; empty: they do, or the key has a password."""
    asked = []

    def refuse():
        asked.append(True)
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key, password=refuse)
    except (OSError, ValueError) as error:
        return "" if asked else f"{error}"
    return ""


def write_time(when):
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))


# Clients


def find_client(path, given):
    """Whose certificate it is. Raises NeedsHumanError where nobody says that it is theirs."""
    client = find_certbot(path) or find_dehydrated(path)
    if client is None and given["command"]:
        argv = given["command"]
        place = os.path.dirname(os.path.realpath(path))
        client = Client(os.path.basename(argv[0]), argv, "", [place])
    if client is None:
        raise NeedsHumanError(
            f"nothing on this host says that it renews {path}: no {RENEWALS}/*.conf names it, and "
            "it is none of dehydrated's; see whose it is: openssl x509 -noout -issuer -subject "
            f"-dates -in {path}; renew it, and give the step of the ladder the `command` that did"
        )
    client.key = find_key(path, given["key"] or client.key)
    return client


def find_certbot(path):
    real = os.path.realpath(path)
    for file in sorted(glob.glob(os.path.join(RENEWALS, "*.conf"))):
        named = read_renewal(read_text(file))
        files = [named[kind] for kind in ("fullchain", "cert") if kind in named]
        if not any(os.path.realpath(each) == real for each in files):
            continue
        name = os.path.basename(file)[: -len(".conf")]
        program = find_program("certbot")
        if program is None:
            raise NeedsHumanError(
                f"{path} is certbot's ({file}), and there is no certbot on this host any more: "
                f"apt-get install certbot; certbot renew --cert-name {shlex.quote(name)}"
            )
        argv = [program, "renew", "--cert-name", name, "--non-interactive"]
        # Else it would sleep for up to eight minutes first.
        argv += ["--no-random-sleep-on-renew"]
        look = f"certbot certificates --cert-name {shlex.quote(name)}"
        places = [*CERTBOT_PLACES, os.path.dirname(real)]
        return Client("certbot", argv, named.get("privkey", ""), places, find_certbot_run, look)
    return None


def read_renewal(text):
    """What stands above the sections of a renewal's configuration (ConfigObj's format)."""
    head = re.split(r"^\s*\[", text, maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", head, re.MULTILINE))


def find_certbot_run():
    for place in CERTBOT_PLACES:
        path = os.path.join(place, CERTBOT_LOCK)
        if pid := find_locker(path):
            return f"process {pid} holds {path}: ps -o pid,lstart,args -p {pid}"
    return ""


def find_locker(path):
    """The process that holds a lock of fcntl(2) on a file; 0: none. It only asks."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        # struct flock: type, whence, start, length, process.
        layout = "hhqqi0q"
        wanted = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(layout, fcntl.fcntl(fd, fcntl.F_GETLK, wanted))
    finally:
        os.close(fd)
    return 0 if kind == fcntl.F_UNLCK else pid


def find_dehydrated(path):
    program = find_program("dehydrated")
    if program is None:
        return None
    code, printed = run([program, "--env"])
    settings = read_settings(printed) if code == 0 else {}
    certificates, lock = settings.get("CERTDIR"), settings.get("LOCKFILE")
    if not certificates:
        return None
    for each in (path, os.path.realpath(path)):
        place, name = os.path.split(each)
        above = os.path.dirname(os.path.realpath(place))
        if above == os.path.realpath(certificates) and DEHYDRATED_NAMES.fullmatch(name):
            break
    else:
        return None

    def find_other():
        if not lock or not os.path.lexists(lock):
            return ""
        return f"{lock} is there: pgrep -af dehydrated; if that finds nothing, rm {lock}"

    # All that is due: with `--domain` it would ask for a certificate without the other names.
    argv = [program, "--cron", "--keep-going"]
    beside = os.path.join(place, "privkey.pem")
    return Client("dehydrated", argv, beside, [certificates, place], find_other)


def read_settings(printed):
    """Variables as `declare -p` of bash prints them."""
    found = re.findall(r'^declare -\S+ (\w+)=(".*")$', printed, re.MULTILINE)
    return {name: "".join(shlex.split(value)) for name, value in found}


# Gates


def check_clock(certificate, path, now):
    """A wrong clock makes good certificates end, and a new one would not make it right."""
    if certificate.begins > now:
        raise NeedsHumanError(
            f"{path} begins at {write_time(certificate.begins)}, and here it is "
            f"{write_time(now)}, so the clock of this host is wrong: timedatectl"
        )
    if any(os.path.exists(each) for each in CONTAINER):
        return
    if read_clock_error() >= UNSYNCED:
        raise NeedsHumanError(
            f"the clock of this host is not synchronised, so whether {path} has ended is not "
            "known: timedatectl; timedatectl set-ntp true"
        )


def read_clock_error():
    """The most that the clock may be wrong by, in seconds, as the kernel knows it (adjtimex(2))."""
    # struct timex: modes, offset, freq, maxerror; 208 bytes are its size, and more do no harm.
    told = (ctypes.c_long * 64)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.byref(told)) < 0:
        why = os.strerror(ctypes.get_errno())
        raise NeedsHumanError(f"the kernel cannot be asked for its clock ({why}): timedatectl")
    return told[3] / 1e6


def check_room(places):
    for place in places:
        try:
            room = os.statvfs(place)
        except OSError:
            continue
        if room.f_flag & os.ST_RDONLY:
            raise NeedsHumanError(
                f"the filesystem of {place} is read-only, and its disk may be dying: see "
                f"findmnt -no SOURCE,OPTIONS -T {place}, then journalctl -k -p err"
            )
        # Clients run as root, who may use what is kept for it.
        if room.f_bfree * room.f_frsize < ROOM or (room.f_files and not room.f_ffree):
            raise NeedsHumanError(
                f"there is no room on the filesystem of {place}, so that a new certificate could "
                f"be lost: df -h {place}; df -i {place}; the remedy clean-disk is for that"
            )


def await_other(client, patience):
    until = time.monotonic() + patience
    while other := client.find_other():
        if time.monotonic() >= until:
            raise NeedsHumanError(
                f"another run of {client.name} is at work: {other}; then {shlex.join(client.argv)}"
            )
        time.sleep(0.5)


# Renewal


def judge(path, before, after, code, said, client, *, failing, now):
    """What the client's run came to. `failing`: a check finds that it ends too soon."""
    by_hand = shlex.join(client.argv)
    if client.look:
        by_hand = f"{client.look}; {by_hand}"
    said = said.strip()[-WORDS:] or "nothing"
    ended = "took too long and was ended" if code is None else f"ended with exit code {code}"
    ends = write_time(after.ends)
    if after.digest == before.digest:
        if code != 0:
            msg = f"{path} was not renewed: {client.name} {ended}; try {by_hand}; it said: {said}"
            return Outcome(msg, needs_human=True)
        if failing or after.ends <= now:
            msg = (
                f"{client.name} renewed nothing, though {path} ends at {ends}: it is never forced, "
                f"since authorities limit that; see {by_hand}; it said: {said}"
            )
            return Outcome(msg, needs_human=True)
        return Outcome(f"{client.name} finds that {path} is not due: it ends at {ends}")
    if client.key and (why := explain_key(path, client.key)):
        msg = (
            f"{client.name} put a new certificate in {path}, and the key {client.key} is not its "
            f"own ({why}), so no server was told: see {by_hand}; it said: {said}"
        )
        return Outcome(msg, changed=True, needs_human=True)
    if after.ends <= before.ends:
        msg = (
            f"{client.name} put a new certificate in {path}, and all the same it ends at {ends}: "
            f"openssl crl2pkcs7 -nocrl -certfile {path} | openssl pkcs7 -print_certs -text; "
            f"it said: {said}"
        )
        return Outcome(msg, changed=True, needs_human=True)
    msg = f"{client.name} renewed {path}, which now ends at {ends}"
    if not client.key:
        msg += "; where its key is nothing says, so they were not tried together"
    if code != 0:
        msg += f"; but it {ended}, so what follows a renewal may not have been done: {said}"
    return Outcome(msg, changed=True, reread=True, needs_human=code != 0)


def renew(given, preview):
    path, seen = os.path.normpath(given["path"]), given["seen_seconds"]
    first, now = read_certificate(path), time.time()
    check_clock(first, path, now)
    # A minute for what lies between the look and this: a renewal gives days.
    if seen is not None and first.ends - now > seen + 60:
        return Outcome(
            f"{path} was renewed already, and ends at {write_time(first.ends)}", reread=True
        )
    client = find_client(path, given)
    check_room(client.places)
    await_other(client, 0 if preview else WAIT_LIMIT)
    if preview:
        return Outcome(
            f"would run {shlex.join(client.argv)}, which renews {path} only where it is due; "
            "the authority is not asked for a preview",
            reread=True,
        )
    before = read_certificate(path)
    if before.ends > first.ends:
        return Outcome(
            f"{path} was renewed by another run of {client.name}, and ends at "
            f"{write_time(before.ends)}",
            reread=True,
        )
    code, said = run(client.argv, CLIENT_LIMIT)
    after = read_certificate(path)
    failing = seen is not None
    return judge(path, before, after, code, said, client, failing=failing, now=time.time())


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "key": {"type": "path", "no_log": False},
            "command": {"type": "list", "elements": "str"},
            "seen_seconds": {"type": "float"},
        },
        supports_check_mode=True,
    )
    try:
        done = renew(module.params, module.check_mode)
    except NeedsHumanError as error:
        done = Outcome(str(error), needs_human=True)
    except OSError as error:
        module.fail_json(msg=f"cannot renew {module.params['path']}: {error}")
    module.exit_json(
        changed=done.changed, reread=done.reread, needs_human=done.needs_human, msg=done.msg
    )


if __name__ == "__main__":
    main()
