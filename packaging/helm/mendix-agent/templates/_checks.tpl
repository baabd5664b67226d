{{/* What the schema can't say: values that don't go together. One sentence each: what is wrong, what
to do. Included by config.yaml, which is always rendered. */}}
{{- define "mendix-agent.checks" -}}
{{- if ne .Release.Namespace "mendix-agent" -}}
{{- fail (printf "the agent lives in namespace mendix-agent, which its rights and its releases name, not in %s: add --namespace mendix-agent" .Release.Namespace) -}}
{{- end -}}
{{- if and .Release.IsInstall .Values.crds.install -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "logsharingpolicies.agent.mendix.com" -}}
{{- $owner := dig "annotations" "meta.helm.sh/release-name" "" .metadata -}}
{{- if not $owner -}}
{{- fail "the agent's definitions are in this cluster and no release of Helm's brought them: install with --skip-crds --set crds.install=false, and keep upgrading them as before" -}}
{{- else if ne $owner $.Release.Name -}}
{{- fail (printf "there is one agent in a cluster, and its definitions belong to Helm's release %s: call this one %s too" $owner $owner) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not .Values.endpoint -}}
{{- fail "endpoint is empty: give the control plane's private endpoint, --set endpoint=https://HOST:PORT" -}}
{{- end -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: give the agent's image in your registry, and its digest as image.digest" -}}
{{- end -}}
{{- with .Values.trust -}}
{{- $texts := list .rootJson .consentKeysJson .channelCaPem -}}
{{- if .existingConfigMap -}}
{{- if join "" $texts -}}
{{- fail "trust.existingConfigMap and the texts of trust exclude each other: give one of them" -}}
{{- end -}}
{{- else -}}
{{- range $key, $text := dict "rootJson" .rootJson "consentKeysJson" .consentKeysJson "channelCaPem" .channelCaPem -}}
{{- if not $text -}}
{{- fail (printf "trust.%s is empty: give it with --set-file trust.%s=FILE, or name a ConfigMap as trust.existingConfigMap" $key $key) -}}
{{- end -}}
{{- end -}}
{{- range $key, $text := dict "rootJson" .rootJson "consentKeysJson" .consentKeysJson -}}
{{- if hasKey (fromJson $text) "Error" -}}
{{- fail (printf "trust.%s is not a JSON object: give the file as the vendor handed it out" $key) -}}
{{- end -}}
{{- end -}}
{{- if not (contains "-----BEGIN CERTIFICATE-----" .channelCaPem) -}}
{{- fail "trust.channelCaPem holds no PEM certificate" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.bootstrap.token .Values.bootstrap.existingSecret -}}
{{- fail "bootstrap.token and bootstrap.existingSecret exclude each other: give one of them" -}}
{{- end -}}
{{- if regexMatch "\\s" (trim .Values.bootstrap.token) -}}
{{- fail "bootstrap.token is more than one word: give the token alone, without the sentence that it was handed out with" -}}
{{- end -}}
{{- with .Values.proxy -}}
{{- if and (not .url) (or .noProxy .credentialsSecret .caPem .caConfigMap) -}}
{{- fail "the values of proxy mean nothing without proxy.url: give that too, or none" -}}
{{- end -}}
{{- if and .url (not $.Values.serverSpkiPins) -}}
{{- fail "proxy.url needs serverSpkiPins: through a proxy the endpoint's address can't be checked, so its key must be known" -}}
{{- end -}}
{{- if and .caPem .caConfigMap -}}
{{- fail "proxy.caPem and proxy.caConfigMap exclude each other: give one of them" -}}
{{- end -}}
{{- if and (hasPrefix "https:" .url) (not (or .caPem .caConfigMap)) -}}
{{- fail "proxy.url is https: give the authority that vouches for the proxy as proxy.caPem or proxy.caConfigMap" -}}
{{- end -}}
{{- end -}}
{{- with .Values.networkPolicy.egress -}}
{{- if and .endpointCidrs (not .apiServerCidrs) -}}
{{- fail "networkPolicy.egress.endpointCidrs without apiServerCidrs would cut the agent off from its cluster: give both" -}}
{{- end -}}
{{- if and .apiServerCidrs (not .endpointCidrs) -}}
{{- fail "networkPolicy.egress.apiServerCidrs without endpointCidrs would cut the agent off from the control plane: give both" -}}
{{- end -}}
{{- end -}}
{{- end }}
