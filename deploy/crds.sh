#!/usr/bin/env bash
# Writes crds/ from the operator's types, and from crds/ the templates of the chart llm-fleet-crds.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo run --quiet --locked --package llm-fleet-operator -- crd --output-dir crds

templates=charts/llm-fleet-crds/templates
mkdir -p "$templates"
find "$templates" -name '*.yaml' -delete
for crd in crds/*.yaml; do
    # One document with one top-level metadata, or the annotation below would go astray.
    [ "$(grep -c '^metadata:$' "$crd")" = 1 ] && ! grep -q '^  annotations:' "$crd" ||
        { echo "$crd is not of the form that $0 knows" >&2; exit 1; }
    # Texts in the schema may contain what Helm would take for a template.
    awk '{ gsub(/\{\{/, "{{ \"{{\" }}") } { print }
         /^metadata:$/ { print "  {{- if .Values.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}" }' \
        "$crd" >"$templates/$(basename "$crd")"
done
