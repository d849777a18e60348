{{/* One worker group: (dict "root" $ "group" group "port" port). */}}
{{- define "poolhouse.workerGroup" -}}
{{- $root := .root -}}
{{- $group := .group -}}
{{- $gpus := int (default 0 $group.gpus) -}}
{{- $resources := deepCopy $group.resources -}}
{{- if gt $gpus 0 -}}
{{- $gpu := dict (default "nvidia.com/gpu" $group.gpuResource) (toString $gpus) -}}
{{- $_ := set $resources "limits" (merge (dict) $gpu (default dict $resources.limits)) -}}
{{- end -}}
- groupName: {{ $group.name }}
  replicas: {{ $group.minReplicas }}
  minReplicas: {{ $group.minReplicas }}
  maxReplicas: {{ $group.maxReplicas }}
  {{- with $group.idleTimeoutSeconds }}
  idleTimeoutSeconds: {{ . }}
  {{- end }}
  {{- with $group.priority }}
  priority: {{ . }}
  {{- end }}
  rayStartParams:
    {{- toYaml (default dict $group.rayStartParams) | nindent 4 }}
  template:
    metadata:
      labels:
        {{- include "poolhouse.podLabels" $root | nindent 8 }}
      annotations:
        {{- include "poolhouse.podAnnotations" $root | trim | default "{}" | nindent 8 }}
    spec:
      # Only the head's autoscaler talks to Kubernetes.
      automountServiceAccountToken: false
      {{- with $root.Values.images.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "poolhouse.podSecurityContext" $root | nindent 8 }}
      terminationGracePeriodSeconds: {{ $root.Values.workers.terminationGracePeriodSeconds }}
      {{- with $group.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      {{- with $group.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $group.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $group.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $group.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if $root.Values.workers.topologySpreadByHostname }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "poolhouse.podSelector" $root | nindent 14 }}
              ray.io/group: {{ $group.name }}
      {{- end }}
      containers:
        - name: ray-worker
          image: {{ include "poolhouse.image" (dict "root" $root "kind" (ternary "cuda" "cpu" (gt $gpus 0))) }}
          imagePullPolicy: {{ $root.Values.images.pullPolicy }}
          ports:
            - {name: serve, containerPort: {{ .port }}}
            - {name: metrics, containerPort: 8080}
          env:
            {{- include "poolhouse.env" $root | trim | nindent 12 }}
          lifecycle:
            preStop:
              exec:
                command: [/bin/bash, -c, "sleep {{ $root.Values.workers.preStopSleepSeconds }}; ray stop"]
          resources:
            {{- toYaml $resources | nindent 12 }}
          securityContext:
            {{- include "poolhouse.securityContext" $root | nindent 12 }}
          {{- with include "poolhouse.volumeMounts" $root | trim }}
          volumeMounts:
            {{- . | nindent 12 }}
          {{- end }}
      {{- with include "poolhouse.volumes" $root | trim }}
      volumes:
        {{- . | nindent 8 }}
      {{- end }}
{{- end -}}
