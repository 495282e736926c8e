#!/usr/bin/python
"""Removes a ballast, and nothing else."""

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.data_directory import Refused
from ansible.module_utils.wal_room import check_mark


def main():
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True
    )
    path = module.params["path"]
    try:
        check_mark(path)
        if not module.check_mode:
            os.unlink(path)
    except (Refused, OSError) as error:
        module.fail_json(msg=f"cannot remove the ballast: {error}")
    module.exit_json(changed=True, msg=f"removed the ballast {path}; make it again")


if __name__ == "__main__":
    main()
