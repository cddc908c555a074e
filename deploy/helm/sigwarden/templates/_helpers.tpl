{{- define "sigwarden.labels" -}}
app.kubernetes.io/name: sigwarden
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "sigwarden.selector" -}}
app.kubernetes.io/name: sigwarden
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "sigwarden.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag }}{{ end }}
{{- end }}
