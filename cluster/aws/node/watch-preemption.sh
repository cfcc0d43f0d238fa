#!/usr/bin/env bash
# Runs beside Ray on a spot worker. AWS says two minutes before that it takes the machine away; the node then leaves the
# cluster in order: its trials save, and nothing new is placed on it.
set -euo pipefail

metadata=${METADATA:-http://169.254.169.254/latest}

ask() { # ask METHOD PATH [HEADER]: the answer; fails where there is none
    python3 -c '
import sys, urllib.request
method, url, *headers = sys.argv[1:]
request = urllib.request.Request(url, method=method, headers=dict(each.split(": ", 1) for each in headers))
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5).read().decode())
' "$1" "$metadata/$2" "$3" 2>/dev/null
}

# 404, and so a failure of `ask`, until there is something to say.
until token=$(ask PUT api/token "X-aws-ec2-metadata-token-ttl-seconds: 60") &&
    ask GET meta-data/spot/instance-action "X-aws-ec2-metadata-token: $token"; do
    sleep "${INTERVAL:-5}"
done
exec sngd-tune cluster leave --seconds 100
