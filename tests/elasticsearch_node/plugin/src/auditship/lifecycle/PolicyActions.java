package auditship.lifecycle;

import java.util.*;
import java.util.function.Consumer;
import org.elasticsearch.ResourceNotFoundException;
import org.elasticsearch.action.ActionListener;
import org.elasticsearch.action.support.master.AcknowledgedRequest;
import org.elasticsearch.action.support.master.AcknowledgedResponse;
import org.elasticsearch.cluster.*;
import org.elasticsearch.cluster.metadata.*;
import org.elasticsearch.common.bytes.BytesArray;
import org.elasticsearch.common.regex.Regex;
import org.elasticsearch.injection.guice.Inject;
import org.elasticsearch.xpack.core.ClientHelper;
import org.elasticsearch.xpack.core.ilm.*;
import org.elasticsearch.xpack.core.ilm.action.*;

/** Stores, lists and removes policies in Elastic's own {@link IndexLifecycleMetadata}, and explains where an index stands. */
final class PolicyActions {

    public static final class Put extends Transport.OnMaster<PutLifecycleRequest> {
        @Inject
        public Put(Transport.Node node) {
            super(ILMActions.PUT.name(), node, PutLifecycleRequest::new, PolicyActions::put);
        }
    }

    public static final class Delete extends Transport.OnMaster<DeleteLifecycleAction.Request> {
        @Inject
        public Delete(Transport.Node node) {
            super(DeleteLifecycleAction.NAME, node, DeleteLifecycleAction.Request::new, PolicyActions::delete);
        }
    }

    public static final class Get extends Transport.Local<GetLifecycleAction.Request, GetLifecycleAction.Response> {
        @Inject
        public Get(Transport.Node node) {
            super(GetLifecycleAction.NAME, node, PolicyActions::get);
        }
    }

    public static final class Explain extends Transport.Local<ExplainLifecycleRequest, ExplainLifecycleResponse> {
        @Inject
        public Explain(Transport.Node node) {
            super(ExplainLifecycleAction.NAME, node, PolicyActions::explain);
        }
    }

    static IndexLifecycleMetadata stored(ProjectMetadata project) {
        return project.custom(IndexLifecycleMetadata.TYPE, IndexLifecycleMetadata.EMPTY);
    }

    private static void put(Transport.Node node, PutLifecycleRequest request, ProjectState project, ActionListener<AcknowledgedResponse> listener) {
        LifecyclePolicy policy = request.getPolicy();
        LifecyclePolicy.validatePolicyName(policy.getName());
        // The steps of a policy run with the rights of whoever stored it.
        var headers = ClientHelper.getPersistableSafeSecurityHeaders(node.pool().getThreadContext(), project.cluster());
        update(node, request, project, listener, policies -> policies.compute(policy.getName(), (name, old) -> {
            long version = old == null ? 1 : old.getVersion() + 1;
            return new LifecyclePolicyMetadata(policy, headers, version, node.pool().absoluteTimeInMillis());
        }));
    }

    private static void delete(
        Transport.Node node, DeleteLifecycleAction.Request request, ProjectState project, ActionListener<AcknowledgedResponse> listener
    ) {
        String name = request.getPolicyName();
        var users = project.metadata().stream().filter(index -> name.equals(index.getLifecyclePolicyName()))
            .map(index -> index.getIndex().getName()).sorted().toList();
        if (users.isEmpty() == false) {
            throw new IllegalArgumentException("Cannot delete policy [" + name + "]. It is in use by one or more indices: " + users);
        }
        if (stored(project.metadata()).getPolicyMetadatas().containsKey(name) == false) {
            throw new ResourceNotFoundException("Lifecycle policy not found: {}", name);
        }
        update(node, request, project, listener, policies -> policies.remove(name));
    }

    /** Lets {@code change} edit the stored policies and answers when the cluster has acknowledged the new state. */
    private static void update(
        Transport.Node node, AcknowledgedRequest<?> request, ProjectState project, ActionListener<AcknowledgedResponse> listener,
        Consumer<Map<String, LifecyclePolicyMetadata>> change
    ) {
        node.cluster().submitUnbatchedStateUpdateTask("ilm-policy", new AckedClusterStateUpdateTask(request, listener) {
            @Override
            public ClusterState execute(ClusterState state) {
                ProjectState current = state.projectState(project.projectId());
                IndexLifecycleMetadata old = stored(current.metadata());
                Map<String, LifecyclePolicyMetadata> policies = new TreeMap<>(old.getPolicyMetadatas());
                change.accept(policies);
                var updated = new IndexLifecycleMetadata(policies, old.getOperationMode());
                return current.updatedState(builder -> builder.putCustom(IndexLifecycleMetadata.TYPE, updated));
            }
        });
    }

    private static void get(
        Transport.Node node, GetLifecycleAction.Request request, ProjectState project, ActionListener<GetLifecycleAction.Response> listener
    ) {
        var policies = new TreeMap<>(stored(project.metadata()).getPolicyMetadatas());
        String[] wanted = request.getPolicyNames();
        for (String name : wanted) {
            if (Regex.isSimpleMatchPattern(name) == false && policies.containsKey(name) == false) {
                throw new ResourceNotFoundException("Lifecycle policy not found: {}", name);
            }
        }
        policies.keySet().removeIf(name -> wanted.length > 0 && Regex.simpleMatch(wanted, name) == false);
        var usage = new LifecyclePolicyUsageCalculator(node.resolver(), project.metadata(), List.copyOf(policies.keySet()));
        listener.onResponse(new GetLifecycleAction.Response(policies.values().stream().map(meta -> {
            var usedBy = usage.retrieveCalculatedUsage(meta.getName());
            return new GetLifecycleAction.LifecyclePolicyResponseItem(meta.getPolicy(), meta.getVersion(), meta.getModifiedDateString(), usedBy);
        }).toList()));
    }

    private static void explain(
        Transport.Node node, ExplainLifecycleRequest request, ProjectState project, ActionListener<ExplainLifecycleResponse> listener
    ) {
        Map<String, IndexLifecycleExplainResponse> answers = new TreeMap<>();
        for (String name : node.resolver().concreteIndexNames(project.metadata(), request)) {
            IndexLifecycleExplainResponse answer = explain(project.metadata().index(name), stored(project.metadata()));
            boolean wanted = answer.managedByILM() || (request.onlyManaged() || request.onlyErrors()) == false;
            if (wanted && (request.onlyErrors() == false || ErrorStep.NAME.equals(answer.getStep()))) {
                answers.put(name, answer);
            }
        }
        listener.onResponse(new ExplainLifecycleResponse(answers));
    }

    private static IndexLifecycleExplainResponse explain(IndexMetadata index, IndexLifecycleMetadata stored) {
        String name = index.getIndex().getName();
        String policy = index.getLifecyclePolicyName();
        if (policy == null || policy.isEmpty()) {
            return IndexLifecycleExplainResponse.newUnmanagedIndexResponse(name);
        }
        LifecycleExecutionState at = index.getLifecycleExecutionState();
        LifecyclePolicyMetadata meta = stored.getPolicyMetadatas().get(policy);
        Phase phase = meta == null || at.phase() == null ? null : meta.getPolicy().getPhases().get(at.phase());
        String info = meta == null ? "{\"reason\":\"policy [" + policy + "] does not exist\"}" : at.stepInfo();
        return IndexLifecycleExplainResponse.newManagedIndexResponse(
            name, index.getCreationDate(), policy, LifecycleRunner.ageBase(index), at.phase(), at.action(), at.step(), at.failedStep(),
            at.isAutoRetryableError(), at.failedStepRetryCount(), at.phaseTime(), at.actionTime(), at.stepTime(),
            at.snapshotRepository(), at.snapshotName(), at.shrinkIndexName(), info == null ? null : new BytesArray(info), null,
            phase == null ? null : new PhaseExecutionInfo(policy, phase, meta.getVersion(), meta.getModifiedDate()),
            LifecycleSettings.LIFECYCLE_SKIP_SETTING.get(index.getSettings()), at.forceMergeCloneIndexName()
        );
    }

    private PolicyActions() {}
}
