#!/usr/bin/python
"""What must be known of a MariaDB server that is down before anything of it is changed.

A module of the remedies for MariaDB. It changes nothing.
"""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused
from ansible.module_utils.mariadb_server import Server


def main():
    module = AnsibleModule(
        argument_spec={"unit": {"type": "str", "required": True}}, supports_check_mode=True
    )
    unit = module.params["unit"]
    try:
        server = Server(unit)
        if server.up:
            module.exit_json(changed=False, up=True, msg=f"{unit} is up: there is nothing to mend")
        server.check_whole()
        stop = server.judge_last_stop()
    except Refused as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        up=False,
        directory=server.directory,
        user=server.user,
        log_base=server.log_base,
        log_index=server.log_index if server.log_base else "",
        clean=stop.clean,
        why=stop.why,
        line=stop.line,
        msg=f"{unit} has its data in {server.directory}; {stop.why}",
    )


if __name__ == "__main__":
    main()
