"""An authority of certificates inside a lab host: Serles, a server of ACME (RFC 8555).

No dependency of the project: what it takes is installed into the cache of labs, outside the
checkout, and copied into the host. Its own backend leaves out the names that a certificate is asked
for, and how long it is good for cannot be said, so here is another one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agent.lab import Lab
from agent.lab.machine import default_cache, remove_tree

PLACE = "/opt/authority"
DIRECTORY = "http://127.0.0.1:8555/directory"
UNIT = "authority.service"
#: Python of Debian 12, which the lab is.
PYTHON = "3.11"
REQUIREMENTS = (
    "cryptography==50.0.2",
    "dnspython==2.9.2",
    "flask==3.1.3",
    "flask-restful==0.3.10",
    "flask-sqlalchemy==3.1.1",
    "gunicorn==23.0.0",
    "jwcrypto==1.6.1",
    "requests==2.34.2",
    "serles-acme==1.3.0",
    "sqlalchemy==2.1.9",
    "werkzeug==3.1.9",
    "zeep==4.3.3",
)

_BACKEND = f'''
import subprocess
from pathlib import Path


class Backend:
    def __init__(self, config):
        pass

    def sign(self, csr, subjectDN, subjectAltNames, email):
        days = Path("{PLACE}/days").read_text().strip()
        argv = ["openssl", "x509", "-req", "-CA", "{PLACE}/ca.pem", "-CAkey", "{PLACE}/ca.key"]
        argv += ["-CAcreateserial", "-copy_extensions", "copyall", "-days", days]
        done = subprocess.run(argv, input=csr, capture_output=True, check=True)
        return done.stdout.decode() + Path("{PLACE}/ca.pem").read_text(), None
'''
_CONFIG = f"""
[serles]
database = sqlite:////{PLACE}/authority.db
backend = lab_backend:Backend
subjectNameTemplate = CN={{SAN[0]}}
"""
_SERVICE = f"""
[Service]
Environment=PYTHONPATH={PLACE}/lib:{PLACE} CONFIG={PLACE}/config.ini
ExecStart=/usr/bin/python3 -m gunicorn --bind 127.0.0.1:8555 --threads 4 "serles:create_app()"
"""


def install() -> Path:
    """What the authority takes, in the cache; once."""
    place = default_cache() / "authority-1"
    if place.is_dir():
        return place
    draft = place.with_name(f"{place.name}.draft")
    remove_tree(draft)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    pip += ["--target", str(draft), "--python-version", PYTHON, "--only-binary=:all:"]
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    draft.rename(place)
    return place


def start_authority(lab: Lab) -> None:
    """Until it answers; its certificates are good for what `have_days` says."""
    lab.copy_in(install(), f"{PLACE}/lib")
    lab.write(f"{PLACE}/lab_backend.py", _BACKEND)
    lab.write(f"{PLACE}/config.ini", _CONFIG)
    lab.write(f"/etc/systemd/system/{UNIT}", _SERVICE)
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"]
    argv += ["-subj", "/CN=Authority of the lab", "-addext", "keyUsage=critical,keyCertSign"]
    lab.run([*argv, "-keyout", f"{PLACE}/ca.key", "-out", f"{PLACE}/ca.pem"])
    lab.run(["systemctl", "daemon-reload"])
    have_days(lab, 90)
    lab.run(["systemctl", "start", UNIT])
    lab.wait_for(["curl", "-sf", DIRECTORY])


def have_days(lab: Lab, days: int) -> None:
    lab.write(f"{PLACE}/days", f"{days}\n")
