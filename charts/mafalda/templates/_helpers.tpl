{{- define "mafalda.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mafalda.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* Labels of everything; takes a list of context and component. */ -}}
{{- define "mafalda.labels" -}}
{{- $context := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
{{ include "mafalda.selector" . }}
{{- end -}}

{{- define "mafalda.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ default $context.Chart.Name $context.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "mafalda.operator.serviceAccount" -}}
{{- if .Values.operator.serviceAccount.create -}}
{{- default (printf "%s-operator" (include "mafalda.fullname" .)) .Values.operator.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.operator.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "mafalda.gateway.serviceAccount" -}}
{{- if .Values.gateway.serviceAccount.create -}}
{{- default (printf "%s-gateway" (include "mafalda.fullname" .)) .Values.gateway.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.gateway.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* JSON list of the namespaces where MediaClusters may live. */ -}}
{{- define "mafalda.mediaNamespaces" -}}
{{- .Values.mediaNamespaces | default (list .Release.Namespace) | uniq | toJson -}}
{{- end -}}

{{- define "mafalda.cluster.namespace" -}}
{{- $namespaces := include "mafalda.mediaNamespaces" . | fromJsonArray -}}
{{- $namespace := .Values.cluster.namespace | default (first $namespaces) -}}
{{- if not (has $namespace $namespaces) -}}
{{- fail (printf "cluster.namespace is %s, which mediaNamespaces does not name (%s): add it there, or the operator may make no pods in it" $namespace (join ", " $namespaces)) -}}
{{- end -}}
{{- $namespace -}}
{{- end -}}

{{- define "mafalda.gateway.tlsSecret" -}}
{{- if .Values.tls.issue -}}
{{- printf "%s-gateway-tls" (include "mafalda.fullname" .) -}}
{{- else -}}
{{- required "tls.gatewaySecret: with tls.issue=false, name the Secret with the gateway's certificate (DNS name gateway.mafalda.internal)" .Values.tls.gatewaySecret -}}
{{- end -}}
{{- end -}}

{{- define "mafalda.publicURL" -}}
{{- $gateway := .Values.gateway -}}
{{- if .Values.cluster.publicURL -}}
{{- .Values.cluster.publicURL -}}
{{- else if and $gateway.enabled $gateway.ingress.enabled $gateway.ingress.host -}}
{{- printf "%s://%s" (ternary "wss" "ws" $gateway.ingress.tls.enabled) $gateway.ingress.host -}}
{{- else if and $gateway.enabled $gateway.httpRoute.enabled $gateway.httpRoute.hostnames -}}
{{- printf "%s://%s" (ternary "wss" "ws" $gateway.httpRoute.tls) (first $gateway.httpRoute.hostnames) -}}
{{- else if $gateway.enabled -}}
{{- printf "ws://%s-gateway.%s.svc:%v" (include "mafalda.fullname" .) .Release.Namespace $gateway.service.port -}}
{{- end -}}
{{- end -}}

{{- define "mafalda.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "mafalda.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Where pods of a role go; takes a list of context, component and the role's values. */ -}}
{{- define "mafalda.scheduling" -}}
{{- $context := index . 0 -}}
{{- $values := index . 2 -}}
{{- $selector := include "mafalda.selector" (list $context (index . 1)) -}}
affinity:
{{- if $values.affinity }}
{{ toYaml $values.affinity | indent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
{{ $selector | indent 12 }}
{{- end }}
topologySpreadConstraints:
{{- if $values.topologySpreadConstraints }}
{{- range $values.topologySpreadConstraints }}
{{ list (merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" ($selector | fromYaml)))) | toYaml }}
{{- end }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
{{ $selector | indent 6 }}
{{- end }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $context.Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "mafalda.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- end -}}
