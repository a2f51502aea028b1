#!/usr/bin/env bash
# Writes crds/ from the operator's types, and from crds/ the templates of the chart llm-fleet-crds.
set -euo pipefail
cd "$(dirname "$0")/.."

# Aside first: what is committed stays until all of what replaces it is there.
aside=$(mktemp -d)
trap 'rm -rf "$aside"' EXIT
mkdir "$aside/crds" "$aside/templates"
cargo run --quiet --locked --package llm-fleet-operator -- crd --output-dir "$aside/crds"

for crd in "$aside"/crds/*.yaml; do
    # One document with one top-level metadata, or the annotation below would go astray.
    [ "$(grep -c '^metadata:$' "$crd")" = 1 ] && ! grep -q '^  annotations:' "$crd" ||
        { echo "$crd is not of the form that $0 knows" >&2; exit 1; }
    # Texts in the schema may contain what Helm would take for a template.
    awk '{ gsub(/\{\{/, "{{ \"{{\" }}") } { print }
         /^metadata:$/ { print "  {{- if .Values.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}" }' \
        "$crd" >"$aside/templates/$(basename "$crd")"
done

# Puts what was generated into a folder, in place of what was there.
replace() {
    mkdir -p "$2"
    find "$2" -name '*.yaml' -delete
    cp "$1"/*.yaml "$2"
}
replace "$aside/crds" crds
replace "$aside/templates" charts/llm-fleet-crds/templates
