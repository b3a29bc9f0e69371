"""Mutants of a good manifest that `--check` lets pass, each with its reason: what is not refused is known."""

from __future__ import annotations

import pytest

from orchestrator.kubernetes.operator_rules import lint
from tests.kubernetes.test_mutants import (
    HEAD,
    HEAD_BOX,
    LIMITS,
    Change,
    both,
    drop,
    good,
    gpu,
    line,
    variable,
)
from tests.kubernetes.test_mutants_of_jobs import AUTO, runtime, service
from tests.kubernetes.test_mutants_of_pods import SUB, volume
from tests.kubernetes.test_rules import BOX, CLUSTER, GROUP, POD, SPEC, edit

ACCEPTED: dict[str, tuple[str, Change]] = {
    "headService clusterIP None": ("the operator's own way", service({"spec":{"clusterIP":"None"}})),
    "headService lb annotations": ("nothing without a LoadBalancer",
        service({"metadata":{"annotations":{"service.beta.kubernetes.io/aws-load-balancer-type":"nlb"}}})),
    "group maxReplicas huge": ("quota and budget bound it", edit(*GROUP,"maxReplicas",value=100000)),
    "shareProcessNamespace": ("Pod Security allows it", edit(*POD,"shareProcessNamespace",value=True)),
    "runAsGroup 0": ("Pod Security allows it", edit(*POD,"securityContext","runAsGroup",value=0)),
    "preRunning 1": ("hasty, and the reason is said", edit(*SPEC,"preRunningDeadlineSeconds",value=1)),
    "submitter backoff 0": ("a lost head ends it, said in status",
        edit(*SPEC,"submitterConfig","backoffLimit",value=0)),
    "submitter no restartPolicy": ("the operator fills it in", drop(*SUB,"restartPolicy")),
    "head image = worker tag mismatch digest": ("nobody knows what a digest holds",
        edit(*HEAD_BOX,"image",value="geosweep-head@sha256:"+"0"*64)),
    "metadata nums": ("for readers", edit(*SPEC,"metadata",value={"sweep":"x"})),
    "head that may be evicted": ("costs one checkpoint interval",
        edit(*HEAD,"template","metadata","annotations",
            value={"cluster-autoscaler.kubernetes.io/safe-to-evict":"true"})),
    "workingDir missing": ("containerd makes it", edit(*BOX,"workingDir",value="/nope")),
    "entry json": ("the last line says how it ended all the same", line("--as-job","--json --as-job")),
    "entry no-cache ok": ("right", line("--as-job","--no-tracking --as-job")),
    "entry max-concurrent>pods": ("trials wait", line("--max-concurrent 64","--max-concurrent 1000")),
    "entry accept-changed": ("stamped exploratory", line("--as-job","--accept-changed-code --as-job")),
    "py_modules s3 ok": ("right", runtime("py_modules: ['s3://b/x.zip']")),
    "runtimeEnv pip with hash only": ("Ray's own check",
        runtime("pip: {packages: ['einops==0.8.1'], pip_check: maybe}")),
    "runtimeEnv config timeout text": ("Ray's own check", runtime("config: {setup_timeout_seconds: soon}")),
    "autoscaler optional mount ok": ("right", edit(*AUTO,"volumeMounts",value=[{"name":"ray","mountPath":"/x"}])),
    "headService status": ("is ignored", service({"status":{"loadBalancer":{}}})),
    "hostUsers": ("the default", edit(*POD,"hostUsers",value=True)),
    "volume unused": ("harmless", volume({"name":"c","emptyDir":{}})),
    "pvc at two names": ("harmless", volume({"name":"more","persistentVolumeClaim":{"claimName":"geosweep-runs"}})),
    "grace 0": ("costs one checkpoint interval", edit(*POD,"terminationGracePeriodSeconds",value=0)),
    "stdin": ("harmless", edit(*BOX,"stdin",value=True)),
    "pod resources": ("Kubernetes 1.34", edit(*POD,"resources",value={"limits":{"cpu":"1"}})),
    "hugepages odd": ("the node's business", edit(*LIMITS,"hugepages-2Mi",value="3Mi")),
    "two vendors": ("no node may have both, and status says so",
        both(edit(*LIMITS,"nvidia.com/gpu",value="1"),edit(*LIMITS,"amd.com/gpu",value="1"),edit(*BOX,"resources",
            "requests","nvidia.com/gpu",value="1"),edit(*BOX,"resources","requests","amd.com/gpu",value="1"))),
    "gpu 100": ("MIG slices and shared GPUs", gpu("nvidia.com/gpu","100")),
    "cpu request less than limit": ("bursts are allowed", edit(*BOX,"resources","requests","cpu",value="10m")),
    "memory request tiny": ("bursts are allowed", edit(*BOX,"resources","requests","memory",value="65Mi")),
    "priority preemption": ("a choice", edit(*POD,"preemptionPolicy",value="Never")),
    "nodeSelector arm": ("images may be built for it",
        edit(*POD,"nodeSelector",value={"kubernetes.io/arch":"arm64"})),
    "status in manifest": ("is ignored", edit("status",value={"jobStatus":"SUCCEEDED"})),
    "uid in metadata": ("as `kubectl get -o yaml` prints it", edit("metadata","uid",value="x")),
    "root with dot": ("the same folder", line("--root /runs","--root /runs/.")),
    "tracking path ok": ("right", line("5000","5000/mlflow")),
    "entry tabs": ("the same words", line(" --root","\t--root")),
    "studies optional": ("a journal on the claim then",
        edit(*HEAD_BOX,"env",1,"valueFrom","secretKeyRef","optional",value=True)),
    "studies worker too": ("nobody reads it there", variable(BOX,"GEOSWEEP_STORAGE","postgresql://x/y")),
    "GEOSWEEP_ROOT": ("--root wins", variable(HEAD_BOX,"GEOSWEEP_ROOT","/tmp")),
    "PYTHONPATH": ("a way to one's own code", variable(BOX,"PYTHONPATH","/x")),
    "OMP": ("a choice", variable(BOX,"OMP_NUM_THREADS","1")),
    "env circular": ("stays as it is written", variable(BOX,"A","$(A)")),
    "time to live 0": ("the cluster goes at once", edit(*SPEC,"ttlSecondsAfterFinished",value=0)),
    "queue with preRunning": ("ends with its reason",
        both(edit("metadata","labels","kueue.x-k8s.io/queue-name",value="q"),edit(*SPEC,"ttlSecondsAfterFinished",
            value=0),edit(*CLUSTER,"enableInTreeAutoscaling",value=False),drop(*CLUSTER,"autoscalerOptions"),
            edit(*GROUP,"replicas",value=3),edit(*GROUP,"minReplicas",value=3),edit(*GROUP,"maxReplicas",value=3))),
    "minReplicas = max fixed w autoscaling": ("a choice",
        both(edit(*GROUP,"minReplicas",value=64),edit(*GROUP,"replicas",value=64))),
    "autoscaler idle 0": ("shrinks at once", edit(*AUTO,"idleTimeoutSeconds",value=0)),
    "headServiceAnnotations": ("nothing without a LoadBalancer",
        edit(*CLUSTER,"headServiceAnnotations",value={"a":"b"})),
    "managedBy kueue": ("MultiKueue's", edit(*SPEC,"managedBy",value="kueue.x-k8s.io/multikueue")),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    why, change = ACCEPTED[name]
    job = good()
    change(job)
    assert why
    assert lint([job]) == []
