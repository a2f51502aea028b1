#!/usr/bin/env bash
# Renders the charts into deploy/rendered: what a change of the charts means for a cluster shows in the diff.
set -euo pipefail
cd "$(dirname "$0")/.."

out=deploy/rendered
# What Helm would ask a cluster for.
cluster=(--namespace llm-fleet-system --kube-version 1.36.3)
monitoring=(--api-versions monitoring.coreos.com/v1/ServiceMonitor --api-versions monitoring.coreos.com/v1/PodMonitor)

# Aside first: what is committed stays until all of what replaces it is there.
aside=$(mktemp -d)
trap 'rm -rf "$aside"' EXIT
"${HELM:?}" template llm-fleet charts/llm-fleet "${cluster[@]}" >"$aside/llm-fleet.yaml"
"${HELM:?}" template llm-fleet charts/llm-fleet "${cluster[@]}" "${monitoring[@]}" \
    --values charts/llm-fleet/ci/full-values.yaml >"$aside/llm-fleet-full.yaml"

mkdir -p "$out"
find "$out" -name '*.yaml' -delete
cp "$aside"/*.yaml "$out"
