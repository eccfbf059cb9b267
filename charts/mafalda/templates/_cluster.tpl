{{- define "mafalda.cluster" -}}
{{- $cluster := .Values.cluster -}}
{{- $host := eq $cluster.networkType "HostNetwork" -}}
{{- $announce := $cluster.announce | default (list (dict "type" (ternary "NodeExternalIP" "PodIP" $host))) -}}
{{- $network := dict "type" $cluster.networkType "announce" $announce -}}
{{- $sessions := dict "namespaces" (dict "from" $cluster.sessionsFrom) -}}
{{- $keys := dict "name" "default" "secretRef" (dict "name" (printf "%s-token-keys" $cluster.name)) "namespaces" (dict "from" $cluster.sessionsFrom) -}}
{{- $spec := dict "network" $network "allowedSessions" $sessions "tokens" (dict "keySets" (list $keys)) -}}
{{- if ne (toString $cluster.replicas) "<nil>" -}}
{{- $_ := set $spec "replicas" (int $cluster.replicas) -}}
{{- end -}}
{{- with include "mafalda.publicURL" . -}}
{{- $_ := set $spec "publicURL" . -}}
{{- end -}}
{{- if .Values.imagePullSecrets -}}
{{- $secrets := list -}}
{{- range .Values.imagePullSecrets -}}
{{- $secrets = append $secrets (dict "name" .) -}}
{{- end -}}
{{- $_ := set $spec "template" (dict "spec" (dict "imagePullSecrets" $secrets)) -}}
{{- end -}}
{{- with $cluster.resources -}}
{{- $_ := set $spec "resources" . -}}
{{- end -}}
{{- if $cluster.tlsSecret -}}
{{- $_ := set $spec "tls" (dict "secretRef" (dict "name" $cluster.tlsSecret)) -}}
{{- else if not .Values.tls.issue -}}
{{- fail (printf "cluster.tlsSecret: with tls.issue=false, name the Secret with the media pods' certificate (DNS name %s.%s.media-server.mafalda.internal)" $cluster.name (include "mafalda.cluster.namespace" .)) -}}
{{- end -}}
apiVersion: mafalda.io/v1alpha1
kind: MediaCluster
metadata:
  name: {{ $cluster.name }}
  namespace: {{ include "mafalda.cluster.namespace" . }}
  labels:
    {{- include "mafalda.labels" (list . "cluster") | nindent 4 }}
spec:
  {{- mergeOverwrite $spec (deepCopy $cluster.spec) | toYaml | nindent 2 }}
{{- end -}}

{{- /* Spec of a Job that runs `mafalda chart`; takes context, args, serviceAccount, deadline and configMap. */ -}}
{{- define "mafalda.hookJob" -}}
backoffLimit: 1
activeDeadlineSeconds: {{ .deadline }}
template:
  metadata:
    labels:
      {{- include "mafalda.labels" (list .context "hooks") | nindent 6 }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ .serviceAccount }}
    automountServiceAccountToken: true
    enableServiceLinks: false
    securityContext:
      {{- include "mafalda.podSecurityContext" .context | nindent 6 }}
    {{- with .context.Values.imagePullSecrets }}
    imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
    {{- end }}
    {{- with .context.Values.operator.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .context.Values.operator.tolerations }}
    tolerations:
    {{- toYaml . | nindent 4 }}
    {{- end }}
    containers:
    - name: mafalda
      image: {{ include "mafalda.image" .context }}
      imagePullPolicy: {{ .context.Values.image.pullPolicy }}
      command: [mafalda, chart]
      args:
      {{- range .args }}
      - {{ . | quote }}
      {{- end }}
      resources:
        requests: {cpu: 50m, memory: 64Mi}
        limits: {memory: 256Mi}
      securityContext:
        {{- include "mafalda.securityContext" .context | nindent 8 }}
      volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- with .configMap }}
      - {name: cluster, mountPath: /etc/mafalda/cluster, readOnly: true}
      {{- end }}
    volumes:
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 16Mi}
    {{- with .configMap }}
    - name: cluster
      configMap: {name: {{ . }}}
    {{- end }}
{{- end -}}
