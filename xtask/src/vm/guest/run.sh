#!/bin/sh
# Runs the command with its output on the second serial line, hands back what it
# left in /merestone/out, and turns the machine off.
set -u
export PATH=/usr/sbin:/usr/bin:/merestone/bin HOME=/root TERM=dumb
. /merestone/environment

stty -F /dev/ttyS1 raw -echo
echo "merestone-guest begins" >/dev/ttyS1
sh /merestone/command >/dev/ttyS1 2>&1 </dev/null
status=$?
tar -C /merestone/out -cf /dev/vdb . && sync
echo "merestone-guest ends $status" >/dev/ttyS1
# Setting the line again waits until it has sent everything.
stty -F /dev/ttyS1 raw
poweroff -f
