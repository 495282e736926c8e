#!/usr/bin/python
"""Stops a service and proves that nothing uses its data any more.

A module of the remedies that change data. In a preview it stops nothing.
"""

from __future__ import annotations

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused, ask_unit, find_users, run


def stop(unit, seconds):
    """Whether it had to be stopped."""
    if read_state(unit) in ("inactive", "failed"):
        return False
    done = run(["systemctl", "stop", "--no-block", "--", unit])
    if done.returncode != 0:
        raise Refused(f"{unit} cannot be stopped: {done.stderr.strip()}")
    until = time.monotonic() + seconds
    while read_state(unit) not in ("inactive", "failed"):
        if time.monotonic() > until:
            raise Refused(
                f"{unit} has not stopped within {seconds:g} s, and is left to stop: see "
                f"systemctl status {unit}"
            )
        time.sleep(0.1)
    return True


def read_state(unit):
    told = ask_unit(unit, "ActiveState", "LoadState")
    if told.get("LoadState") != "loaded":
        raise Refused(f"there is no unit {unit} (LoadState={told.get('LoadState')})")
    return told["ActiveState"]


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "directories": {"type": "list", "elements": "path", "required": True},
            "seconds": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    unit, directories = module.params["unit"], module.params["directories"]
    try:
        if module.check_mode:
            up = read_state(unit) not in ("inactive", "failed")
            module.exit_json(changed=up, msg=f"would stop {unit}" if up else f"{unit} is down")
        stopped = stop(unit, module.params["seconds"])
        if users := find_users(directories):
            raise Refused(
                f"{unit} is down, and its data is used by others: {', '.join(users[:5])}; end them"
            )
    except Refused as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=stopped, msg=f"{unit} is down and nobody uses its data")


if __name__ == "__main__":
    main()
