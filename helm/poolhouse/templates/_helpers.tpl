{{/* KubeRay allows 47 characters for the name of a RayService. */}}
{{- define "poolhouse.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 47 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 47 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "poolhouse.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/*
Labels of all Ray pods. app.kubernetes.io/name is left to KubeRay: its head service selects pods by its own value. Nothing here
changes with the chart's version, since a changed pod template means a new cluster.
*/}}
{{- define "poolhouse.podSelector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ include "poolhouse.fullname" . }}
{{- end -}}

{{/* The Serve configuration as a mapping. */}}
{{- define "poolhouse.config" -}}
{{- if not .Values.serveConfig -}}
{{- fail "serveConfig is empty; give the Serve configuration: --set-file serveConfig=configs/prod.yaml" -}}
{{- end -}}
{{- $config := fromYaml .Values.serveConfig -}}
{{- if hasKey $config "Error" -}}
{{- fail (printf "serveConfig is not valid YAML: %s" $config.Error) -}}
{{- end -}}
{{- if not $config.applications -}}
{{- fail "serveConfig has no applications; give a file as configs/prod.yaml with --set-file serveConfig=FILE" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "poolhouse.port" -}}
{{- $config := fromYaml (include "poolhouse.config" .) -}}
{{- dig "http_options" "port" 8000 $config | int -}}
{{- end -}}

{{/* Names of the variables that the applications read their API keys from, as a list. */}}
{{- define "poolhouse.apiKeyVariables" -}}
{{- $names := list -}}
{{- range (fromYaml (include "poolhouse.config" .)).applications -}}
{{- with dig "args" "api_keys" "environment" "" . -}}
{{- $names = append $names . -}}
{{- end -}}
{{- end -}}
{{- toYaml ($names | uniq) -}}
{{- end -}}

{{- define "poolhouse.apiKeySecret" -}}
{{- .Values.apiKeys.existingSecret | default (printf "%s-api-keys" (include "poolhouse.fullname" .)) -}}
{{- end -}}

{{/* serve.env as a list of variables: NAME=VALUE lines; comments and empty lines are passed over. */}}
{{- define "poolhouse.env" -}}
{{- if not .Values.serveEnv -}}
{{- fail "serveEnv is empty; give the environment of the Ray containers: --set-file serveEnv=configs/serve.env" -}}
{{- end -}}
{{- range $line := splitList "\n" (.Values.serveEnv | replace "\r" "") -}}
{{- $line = trim $line -}}
{{- if and $line (not (hasPrefix "#" $line)) -}}
{{- if not (regexMatch "^[A-Za-z_][A-Za-z0-9_]*=" $line) -}}
{{- fail (printf "serveEnv: the line %q is not NAME=VALUE" $line) }}
{{- end }}
- name: {{ regexReplaceAll "=.*$" $line "" }}
  value: {{ regexReplaceAll "^[^=]*=" $line "" | quote }}
{{- end }}
{{- end }}
{{- if ne .Values.modelCache.type "image" }}
- name: POOLHOUSE_CACHE_DIR
  value: /var/cache/poolhouse
- name: HF_HOME
  value: /var/cache/poolhouse/huggingface
{{- end }}
{{- range fromYamlArray (include "poolhouse.apiKeyVariables" .) }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ include "poolhouse.apiKeySecret" $ }}
      key: {{ $.Values.apiKeys.key }}
{{- end }}
{{- if .Values.hubToken.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .Values.hubToken.existingSecret }}
      key: {{ .Values.hubToken.key }}
{{- end }}
{{- with .Values.pods.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Image of a kind: (dict "root" $ "kind" "cpu"). */}}
{{- define "poolhouse.image" -}}
{{- $image := index .root.Values.images .kind -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (printf "%s-%s" .root.Chart.AppVersion .kind)) -}}
{{- end -}}
{{- end -}}

{{- define "poolhouse.podAnnotations" -}}
{{- with .Values.apiKeys.records }}
{{- /* A container reads a Secret once; the digest makes a change of keys a change of the pods. */}}
checksum/api-keys: {{ toYaml . | sha256sum }}
{{- end }}
{{- with .Values.pods.annotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "poolhouse.podLabels" -}}
{{ include "poolhouse.podSelector" . }}
{{- with .Values.pods.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "poolhouse.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.pods.runAsUser }}
fsGroup: {{ .Values.pods.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "poolhouse.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "poolhouse.volumes" -}}
{{- if eq .Values.modelCache.type "persistentVolumeClaim" }}
- name: model-cache
  persistentVolumeClaim:
    claimName: {{ .Values.modelCache.existingClaim | default (printf "%s-models" (include "poolhouse.fullname" .)) }}
{{- else if eq .Values.modelCache.type "emptyDir" }}
- name: model-cache
  emptyDir:
    sizeLimit: {{ .Values.modelCache.size }}
{{- end }}
{{- with .Values.pods.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "poolhouse.volumeMounts" -}}
{{- if ne .Values.modelCache.type "image" }}
- name: model-cache
  mountPath: /var/cache/poolhouse
{{- end }}
{{- with .Values.pods.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Contradictions that would otherwise show only in a running cluster. */}}
{{- define "poolhouse.validate" -}}
{{- $config := fromYaml (include "poolhouse.config" .) -}}
{{- if has (dig "http_options" "host" "0.0.0.0" $config) (list "127.0.0.1" "localhost") -}}
{{- fail "serveConfig: http_options.host is this machine alone, so no Service reaches it; set it to 0.0.0.0 (configs/prod.yaml does)" -}}
{{- end -}}
{{- $variables := fromYamlArray (include "poolhouse.apiKeyVariables" .) -}}
{{- $keys := or .Values.apiKeys.existingSecret .Values.apiKeys.records -}}
{{- if and $variables (not $keys) -}}
{{- fail (printf "serveConfig reads API keys from %s and none are given; set apiKeys.existingSecret or apiKeys.records" (join ", " $variables)) -}}
{{- end -}}
{{- if and $keys (not $variables) -}}
{{- fail "apiKeys are given and serveConfig does not read them, so everybody would be served; set args.api_keys.environment in the Serve configuration" -}}
{{- end -}}
{{- if and .Values.apiKeys.existingSecret .Values.apiKeys.records -}}
{{- fail "apiKeys.existingSecret and apiKeys.records are both set; use one" -}}
{{- end -}}
{{- if and .Values.auth.existingSecret (ne .Values.auth.mode "token") -}}
{{- fail "auth.existingSecret is given and auth.mode is not token, so nobody would be asked for it" -}}
{{- end -}}
{{- $gpus := 0 -}}
{{- range .Values.workerGroups -}}
{{- $gpus = add $gpus (int (default 0 .gpus)) -}}
{{- end -}}
{{- if eq (int $gpus) 0 -}}
{{- range $config.applications -}}
{{- range .deployments -}}
{{- if gt (float64 (dig "ray_actor_options" "num_gpus" 0 .)) 0.0 -}}
{{- fail (printf "serveConfig: %s asks for GPUs and no worker group has any; add a group with gpus, or set its num_gpus to 0" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.gcsFaultTolerance.enabled (not .Values.gcsFaultTolerance.redisAddress) -}}
{{- fail "gcsFaultTolerance.enabled needs gcsFaultTolerance.redisAddress (host:port)" -}}
{{- end -}}
{{- if eq .Values.upgrade.type "NewClusterWithIncrementalUpgrade" -}}
{{- if not .Values.autoscaler.enabled -}}
{{- fail "upgrade.type NewClusterWithIncrementalUpgrade needs autoscaler.enabled" -}}
{{- end -}}
{{- if not .Values.upgrade.incremental.gatewayClassName -}}
{{- fail "upgrade.type NewClusterWithIncrementalUpgrade needs upgrade.incremental.gatewayClassName" -}}
{{- end -}}
{{- if gt (int .Values.upgrade.incremental.stepSizePercent) (int .Values.upgrade.incremental.maxSurgePercent) -}}
{{- fail "upgrade.incremental.stepSizePercent is above maxSurgePercent; KubeRay refuses that" -}}
{{- end -}}
{{- if or .Values.ingress.enabled .Values.httpRoute.enabled -}}
{{- fail "with upgrade.type NewClusterWithIncrementalUpgrade KubeRay makes the Gateway and the route itself; disable ingress and httpRoute" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled .Values.httpRoute.createGateway (not .Values.httpRoute.gatewayClassName) -}}
{{- fail "httpRoute.createGateway needs httpRoute.gatewayClassName" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.createGateway) (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs (an existing Gateway) or httpRoute.createGateway" -}}
{{- end -}}
{{- end -}}
