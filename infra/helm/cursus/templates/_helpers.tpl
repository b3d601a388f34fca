{{- define "cursus.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end -}}
{{- end }}

{{- define "cursus.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cursus.labels" -}}
{{ include "cursus.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "cursus.serviceAccount" -}}
{{- .Values.serviceAccount.existing | default (include "cursus.name" .) -}}
{{- end }}

{{- define "cursus.metadata" -}}
name: {{ include "cursus.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "cursus.labels" . | nindent 2 }}
{{- end }}
