# SPDX-License-Identifier: Apache-2.0
"""The machine itself."""


def test_a_machine_boots_and_follows_its_plan(world):
    world.put(timezone="Asia/Seoul", files=[{"path": "/etc/motd", "content": "안녕\n"}])
    world.vm.boot()
    world.vm.sh("systemctl start agentd")
    world.settle()
    assert world.vm.out("date +%Z") == "KST"
    assert world.vm.out("cat /etc/motd") == "안녕"
