#!/usr/bin/python
"""What must be known of a Redis server that is down before anything of it is changed.

It changes nothing.
"""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused
from ansible.module_utils.redis_server import Server


def main():
    module = AnsibleModule(
        argument_spec={"unit": {"type": "str", "required": True}}, supports_check_mode=True
    )
    unit = module.params["unit"]
    try:
        server = Server(unit)
    except Refused as error:
        module.fail_json(msg=str(error))
    said = "is up: there is nothing to mend" if server.up else f"has its data in {server.directory}"
    module.exit_json(changed=False, up=server.up, directory=server.directory, msg=f"{unit} {said}")


if __name__ == "__main__":
    main()
