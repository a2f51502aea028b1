{{- define "llm-fleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What the Deployment selects by; never changes for a release. */ -}}
{{- define "llm-fleet.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "llm-fleet.labels" -}}
{{ include "llm-fleet.selectorLabels" . }}
app.kubernetes.io/part-of: llm-fleet
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "llm-fleet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "llm-fleet.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Reference of an image: (dict "root" $ "image" .Values.image). */ -}}
{{- define "llm-fleet.image" -}}
{{- $name := .image.repository -}}
{{- with .root.Values.imageRegistry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" .) $name -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Who names users: `fixed` or `assigned`. */ -}}
{{- define "llm-fleet.podIdentity" -}}
{{- if ne .Values.podSecurity.identity "auto" -}}
{{- .Values.podSecurity.identity -}}
{{- else if .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}
assigned
{{- else -}}
fixed
{{- end -}}
{{- end -}}

{{- /* "true" where Prometheus's operator is there and wanted. */ -}}
{{- define "llm-fleet.monitors" -}}
{{- if and .Values.metrics.monitors (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/ServiceMonitor") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor") -}}
true
{{- end -}}
{{- end -}}

{{- /* Where operator and runtimes serve health and metrics: fixed by the programs. */ -}}
{{- define "llm-fleet.adminPort" -}}
8001
{{- end -}}

{{- /* Annotation by which a metrics endpoint is found where there are no monitors. */ -}}
{{- define "llm-fleet.scrapeAnnotations" -}}
{{- if not (include "llm-fleet.monitors" .) -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ include "llm-fleet.adminPort" . | quote }}
prometheus.io/path: /metrics
{{- end -}}
{{- end -}}

{{- /* Of what is no part of the operator's Deployment, which must not select it: (dict "root" $ "component" "check"). */ -}}
{{- define "llm-fleet.helperLabels" -}}
{{- merge (dict "app.kubernetes.io/component" .component) (include "llm-fleet.labels" .root | fromYaml) | toYaml -}}
{{- end -}}

{{- /* A pod that runs one command of the operator's image: (dict "root" $ "name" "check" "args" (list "check")). */ -}}
{{- define "llm-fleet.helperPod" -}}
{{- $values := .root.Values -}}
restartPolicy: Never
enableServiceLinks: false
{{- with $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: {{ .name }}
    image: {{ include "llm-fleet.image" (dict "root" .root "image" $values.image) }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
      {{- toYaml .args | nindent 6 }}
    resources:
      requests: { cpu: 10m, memory: 16Mi }
      limits: { memory: 64Mi }
    securityContext:
      allowPrivilegeEscalation: false
      capabilities:
        drop: [ALL]
      readOnlyRootFilesystem: true
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Rules of a NetworkPolicy: names, of which the resolver may be a pod, a node's cache or a host. */}}
{{- define "llm-fleet.namesEgress" -}}
- ports:
    - { port: 53, protocol: UDP }
    - { port: 53, protocol: TCP }
{{- end }}

{{/* Rules of a NetworkPolicy: names and the API server, whose addresses cannot be known here. */}}
{{- define "llm-fleet.apiServerEgress" -}}
{{ include "llm-fleet.namesEgress" . }}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - { port: {{ . }}, protocol: TCP }
    {{- end }}
{{- end }}
