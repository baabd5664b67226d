{{/* Parts that several objects share. */}}

{{/* Labels of every object that a template makes; the objects of files/ bring theirs. */}}
{{- define "mendix-agent.labels" -}}
app.kubernetes.io/name: mendix-agent
app.kubernetes.io/part-of: mendix-on-azure
{{- end }}

{{- define "mendix-agent.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The image of a Deployment: what it runs, once a release has moved the agent's (its pods name their
trial then), since from that on the image is the release's. An upgrade of the chart would otherwise roll
the former version out and have it put back, and leave the guard behind. Called with the root and the
Deployment's name. */}}
{{- define "mendix-agent.imageOf" -}}
{{- $root := index . 0 -}}
{{- $agent := lookup "apps/v1" "Deployment" $root.Release.Namespace "mendix-agent" -}}
{{- $live := lookup "apps/v1" "Deployment" $root.Release.Namespace (index . 1) -}}
{{- if and $live (dig "spec" "template" "metadata" "annotations" "agent.mendix.com/trial" "" $agent) -}}
{{ (index $live.spec.template.spec.containers 0).image }}
{{- else -}}
{{ include "mendix-agent.image" $root }}
{{- end -}}
{{- end }}

{{- define "mendix-agent.trustConfigMap" -}}
{{ .Values.trust.existingConfigMap | default "mendix-agent-trust" }}
{{- end }}

{{- define "mendix-agent.bootstrapSecret" -}}
{{ .Values.bootstrap.existingSecret | default "mendix-agent-bootstrap" }}
{{- end }}

{{- define "mendix-agent.proxyCaConfigMap" -}}
{{- if .Values.proxy.caConfigMap -}}
{{ .Values.proxy.caConfigMap }}
{{- else if .Values.proxy.caPem -}}
mendix-agent-proxy-ca
{{- end -}}
{{- end }}

{{/* The agent's configuration file. What is at its default is left out. */}}
{{- define "mendix-agent.config" -}}
endpoint: {{ .Values.endpoint | quote }}
{{- if .Values.allowPublicEndpoint }}
allowPublicEndpoint: true
{{- end }}
{{- if .Values.identity.existingSecret }}
identityDir: /etc/mendix-agent/identity
{{- end }}
{{- with .Values.proxy.url }}
proxy: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.noProxy }}
noProxy: {{ join "," . | quote }}
{{- end }}
{{- if .Values.proxy.credentialsSecret }}
proxyCredentialsFile: /etc/mendix-agent/proxy/credentials
{{- end }}
{{- with .Values.serverSpkiPins }}
serverSpkiPins: {{ join "," . | quote }}
{{- end }}
{{- if include "mendix-agent.proxyCaConfigMap" . }}
caBundleFile: /etc/mendix-agent/proxy-ca/ca-bundle.pem
{{- end }}
logFilter: {{ .Values.logging.filter | quote }}
logFormat: {{ .Values.logging.format }}
{{- end }}

{{/* Port of the endpoint or, when there is one, of the proxy. */}}
{{- define "mendix-agent.egressPort" -}}
{{- $url := urlParse (.Values.proxy.url | default .Values.endpoint) -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if $port -}}
{{ $port }}
{{- else if eq $url.scheme "http" -}}
80
{{- else -}}
443
{{- end -}}
{{- end }}

{{- define "mendix-agent.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "mendix-agent.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What the agent and preflight have in common, from the image on. */}}
{{- define "mendix-agent.container" -}}
image: {{ include "mendix-agent.imageOf" (list . "mendix-agent") | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
- {name: MENDIX_AGENT_CONFIG, value: /etc/mendix-agent/config/config.yaml}
- {name: MENDIX_AGENT_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: MENDIX_AGENT_SERVICE_ACCOUNT_TOKEN_FILE, value: /var/run/secrets/mendix-agent/token}
# The trial that made this pod; empty when it was installed.
- {name: MENDIX_AGENT_TRIAL, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['agent.mendix.com/trial']"}}}
securityContext: {{- include "mendix-agent.containerSecurity" . | nindent 2 }}
volumeMounts:
# As a folder: a file by subPath would never change while the agent runs (logFilter does).
- {name: config, mountPath: /etc/mendix-agent/config, readOnly: true}
- {name: trust, mountPath: /etc/mendix-agent/trust, readOnly: true}
- {name: bootstrap, mountPath: /etc/mendix-agent/bootstrap, readOnly: true}
- {name: attestation, mountPath: /var/run/secrets/mendix-agent, readOnly: true}
# Where verified release metadata is laid out for the TUF client; memory, never disk.
- {name: tmp, mountPath: /tmp}
{{- if include "mendix-agent.proxyCaConfigMap" . }}
- {name: proxy-ca, mountPath: /etc/mendix-agent/proxy-ca, readOnly: true}
{{- end }}
{{- if .Values.identity.existingSecret }}
- {name: identity, mountPath: /etc/mendix-agent/identity, readOnly: true}
{{- end }}
{{- if .Values.proxy.credentialsSecret }}
- {name: proxy, mountPath: /etc/mendix-agent/proxy, readOnly: true}
{{- end }}
{{- end }}

{{- define "mendix-agent.volumes" -}}
- {name: config, configMap: {name: mendix-agent-config}}
- {name: trust, configMap: {name: {{ include "mendix-agent.trustConfigMap" . }}}}
# Spent after enrolment; may be deleted then.
- {name: bootstrap, secret: {secretName: {{ include "mendix-agent.bootstrapSecret" . }}, optional: true}}
- name: attestation
  projected:
    sources:
    - serviceAccountToken: {audience: mendix-control-plane, expirationSeconds: 3600, path: token}
- {name: tmp, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
{{- with include "mendix-agent.proxyCaConfigMap" . }}
- {name: proxy-ca, configMap: {name: {{ . }}}}
{{- end }}
{{- with .Values.identity.existingSecret }}
- {name: identity, secret: {secretName: {{ . }}}}
{{- end }}
{{- with .Values.proxy.credentialsSecret }}
- {name: proxy, secret: {secretName: {{ . }}}}
{{- end }}
{{- end }}
