#!/usr/bin/env bash
# Runs beside Ray on a spot worker. Google says half a minute before that it takes the machine away; the node then leaves
# the cluster in order: its trials save, and nothing new is placed on it.
set -euo pipefail

metadata=${METADATA:-http://169.254.169.254/computeMetadata/v1}

preempted() { # TRUE or FALSE; answers when it changes, or after a minute; fails where nobody answers
    python3 -c '
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Metadata-Flavor": "Google"})
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=90).read().decode())
' "$metadata/instance/preempted?wait_for_change=true&timeout_sec=60" 2>/dev/null
}

until [ "$(preempted)" = TRUE ]; do
    sleep "${INTERVAL:-1}"
done
exec sngd-tune cluster leave --seconds 20
