#!/bin/bash
# Runs one Serve configuration in this container, with the environment that make serve uses. KubeRay does not call it.
set -euo pipefail
root=/opt/poolhouse
config=${1:-$root/configs/local.yaml}
set -a
# shellcheck source=configs/serve.env
. "$root/configs/serve.env"
set +a
poolhouse check --pull "$config"
exec python -m deployments.launch "$config"
