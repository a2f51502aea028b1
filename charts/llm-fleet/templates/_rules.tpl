{{- /* Reads of the whole cluster: placement counts what strangers' pods request too. */ -}}
{{- define "llm-fleet.fleetRules" -}}
- apiGroups: [""]
  resources: [nodes, pods, persistentvolumes]
  verbs: [list, watch]
- apiGroups: [node.k8s.io]
  resources: [runtimeclasses]
  verbs: [list, watch]
{{- end -}}

{{- /* Rights in the namespaces that are served: exactly the calls that the operator makes. */ -}}
{{- define "llm-fleet.servedRules" -}}
- apiGroups: [llmfleet.dev]
  resources: [llmdeployments]
  verbs: [get, list, watch]
- apiGroups: [llmfleet.dev]
  resources: [llmmodels]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [llmfleet.dev]
  resources: [llmdeployments/status, llmmodels/status]
  verbs: [patch]
# Pods are listed and watched in the whole cluster anyway.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# A service goes with its owner.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}
# OpenShift lets only those say whose an object is who may delete it, and a service may have to be taken over from a
# deployment that was deleted and made again.
- apiGroups: [""]
  resources: [services]
  verbs: [delete]
{{- end }}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# The one line in which a job reports a model's geometry.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# What the cluster says about a claim or a job that does not get on.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
