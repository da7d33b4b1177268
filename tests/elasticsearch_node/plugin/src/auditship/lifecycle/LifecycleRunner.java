package auditship.lifecycle;

import java.util.*;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.UnaryOperator;
import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.elasticsearch.action.ActionListener;
import org.elasticsearch.client.internal.Client;
import org.elasticsearch.cluster.*;
import org.elasticsearch.cluster.metadata.*;
import org.elasticsearch.cluster.service.ClusterService;
import org.elasticsearch.common.Strings;
import org.elasticsearch.common.component.AbstractLifecycleComponent;
import org.elasticsearch.core.TimeValue;
import org.elasticsearch.gateway.GatewayService;
import org.elasticsearch.index.Index;
import org.elasticsearch.index.IndexSettings;
import org.elasticsearch.threadpool.Scheduler;
import org.elasticsearch.threadpool.ThreadPool;
import org.elasticsearch.xcontent.ToXContentObject;
import org.elasticsearch.xpack.core.ClientHelper;
import org.elasticsearch.xpack.core.XPackPlugin;
import org.elasticsearch.xpack.core.ilm.*;
import org.elasticsearch.xpack.core.ilm.Step.StepKey;
import org.elasticsearch.xpack.core.ilm.step.info.SingleMessageFieldInfo;

/**
 * Our loop over Elastic's own steps. Every {@code indices.lifecycle.poll_interval} the elected master takes each managed index,
 * finds the step its execution state (in the index metadata) names, and runs it; a finished step leads to the next at once.
 *
 * <p>Unlike the real module: steps are taken from the policy as it is now, not from a copy cached when the phase began; waiting
 * steps are looked at on each poll only, not on each cluster state; there is no history index and no manual move or retry.
 */
final class LifecycleRunner extends AbstractLifecycleComponent {

    private static final Logger logger = LogManager.getLogger(LifecycleRunner.class);

    private final Client client;
    private final ClusterService clusterService;
    private final ThreadPool threadPool;
    private final Set<Index> busy = ConcurrentHashMap.newKeySet();
    private volatile TimeValue interval;
    private volatile Scheduler.Cancellable schedule;

    LifecycleRunner(Client client, ClusterService clusterService, ThreadPool threadPool) {
        this.client = client;
        this.clusterService = clusterService;
        this.threadPool = threadPool;
        this.interval = LifecycleSettings.LIFECYCLE_POLL_INTERVAL_SETTING.get(clusterService.getSettings());
        clusterService.getClusterSettings().addSettingsUpdateConsumer(LifecycleSettings.LIFECYCLE_POLL_INTERVAL_SETTING, value -> {
            interval = value;
            reschedule();
        });
    }

    @Override
    protected void doStart() {
        reschedule();
    }

    @Override
    protected void doStop() {
        if (schedule != null) {
            schedule.cancel();
        }
    }

    @Override
    protected void doClose() {}

    private synchronized void reschedule() {
        doStop();
        schedule = threadPool.scheduleWithFixedDelay(this::poll, interval, threadPool.generic());
    }

    private void poll() {
        ClusterState state = clusterService.state();
        if (state.nodes().isLocalNodeElectedMaster() == false || state.blocks().hasGlobalBlock(GatewayService.STATE_NOT_RECOVERED_BLOCK)) {
            return;
        }
        state.forEachProject(project -> {
            for (IndexMetadata index : project.metadata().indices().values()) {
                if (index.getLifecyclePolicyName() != null && busy.add(index.getIndex())) {
                    advance(project.projectId(), index.getIndex());
                }
            }
        });
    }

    /** The instant an index's age is counted from: the real setting if given, else its rollover, else its creation. */
    static Long ageBase(IndexMetadata index) {
        long origin = IndexSettings.LIFECYCLE_ORIGINATION_DATE_SETTING.get(index.getSettings());
        return origin == -1L ? index.getLifecycleExecutionState().lifecycleDate() : Long.valueOf(origin);
    }

    /** Runs the index's current step. The index stays in {@link #busy} until the chain of steps comes to rest. */
    private void advance(ProjectId projectId, Index index) {
        Step step = null;
        try (var ignored = threadPool.getThreadContext().stashContext()) {
            ProjectState project = clusterService.state().projectState(projectId);
            IndexMetadata meta = project.metadata().index(index);
            var stored = PolicyActions.stored(project.metadata());
            var policy = meta == null ? null : stored.getPolicyMetadatas().get(meta.getLifecyclePolicyName());
            if (policy == null
                || stored.getOperationMode() != OperationMode.RUNNING
                || LifecycleSettings.LIFECYCLE_SKIP_SETTING.get(meta.getSettings())) {
                busy.remove(index);
                return;
            }
            var asOwner = new LifecyclePolicySecurityClient(client, ClientHelper.INDEX_LIFECYCLE_ORIGIN, policy.getHeaders());
            Map<StepKey, Step> steps = new HashMap<>();
            policy.getPolicy().toSteps(asOwner, XPackPlugin.getSharedLicenseState()).forEach(each -> steps.put(each.getKey(), each));

            LifecycleExecutionState at = meta.getLifecycleExecutionState();
            StepKey key = Step.getCurrentStepKey(at);
            if (key != null && ErrorStep.NAME.equals(key.name())) {
                key = new StepKey(key.phase(), key.action(), at.failedStep()); // a failed step is tried again on each poll
            }
            step = key == null ? null : steps.get(key);
            if (step == null) {
                moveTo(projectId, index, InitializePolicyContextStep.KEY); // new to the policy, or the policy has changed
            } else {
                run(step, project, meta, policy.getPolicy());
            }
        } catch (Exception e) {
            fail(projectId, index, step, e);
        }
    }

    private void run(Step step, ProjectState project, IndexMetadata meta, LifecyclePolicy policy) {
        ProjectId projectId = project.projectId();
        Index index = meta.getIndex();
        switch (step) {
            case TerminalPolicyStep done -> busy.remove(index);
            case PhaseCompleteStep complete -> {
                StepKey next = complete.getNextStepKey();
                Phase phase = next == null ? null : policy.getPhases().get(next.phase());
                long age = threadPool.absoluteTimeInMillis() - ageBase(meta);
                if (next == null || phase != null && age < phase.getMinimumAge().millis()) {
                    busy.remove(index);
                } else {
                    moveTo(projectId, index, next);
                }
            }
            case AsyncActionStep action -> {
                var observer = new ClusterStateObserver(project.cluster(), clusterService, null, logger, threadPool.getThreadContext());
                action.performAction(meta, project, observer, ActionListener.wrap(ok -> {
                    logger.info("[{}] did [{}]", index.getName(), step.getKey());
                    if (action.indexSurvives()) {
                        moveTo(projectId, index, action.getNextStepKey());
                    } else {
                        busy.remove(index);
                    }
                }, e -> fail(projectId, index, step, e)));
            }
            case AsyncWaitStep wait -> wait.evaluateCondition(project, meta, new AsyncWaitStep.Listener() {
                @Override
                public void onResponse(boolean met, ToXContentObject info) {
                    waited(projectId, index, step, met, info);
                }

                @Override
                public void onFailure(Exception e) {
                    fail(projectId, index, step, e);
                }
            }, TimeValue.timeValueSeconds(30));
            case ClusterStateWaitStep wait -> {
                var result = wait.isConditionMet(index, project);
                waited(projectId, index, step, result.complete(), result.informationContext());
            }
            case ClusterStateActionStep action -> update(projectId, index, step, current -> {
                ProjectState after = action.performAction(index, current);
                // a branching step knows its next step only once it has run
                return after.metadata().index(index) == null ? after : at(after, index, action.getNextStepKey());
            }, true);
            default -> throw new IllegalStateException("no way to run " + step.getClass());
        }
    }

    private void waited(ProjectId projectId, Index index, Step step, boolean met, ToXContentObject info) {
        if (met) {
            moveTo(projectId, index, step.getNextStepKey());
        } else {
            String text = info == null ? null : Strings.toString(info);
            update(projectId, index, step, current -> with(current, index, state -> state.setStepInfo(text)), false);
        }
    }

    private void fail(ProjectId projectId, Index index, Step step, Exception e) {
        logger.warn("[" + index.getName() + "] step " + step + " failed", e);
        if (step == null) {
            busy.remove(index);
            return;
        }
        String info = Strings.toString(new SingleMessageFieldInfo(e.toString()));
        update(projectId, index, step, current -> {
            Integer tries = current.metadata().index(index).getLifecycleExecutionState().failedStepRetryCount();
            return with(
                current,
                index,
                state -> state.setStep(ErrorStep.NAME)
                    .setFailedStep(step.getKey().name())
                    .setStepInfo(info)
                    .setIsAutoRetryableError(step.isRetryable())
                    .setFailedStepRetryCount(tries == null ? 0 : tries + 1)
            );
        }, false);
    }

    private void moveTo(ProjectId projectId, Index index, StepKey key) {
        update(projectId, index, null, current -> at(current, index, key), true);
    }

    private ProjectState at(ProjectState project, Index index, StepKey key) {
        long now = threadPool.absoluteTimeInMillis();
        LifecycleExecutionState old = project.metadata().index(index).getLifecycleExecutionState();
        return with(project, index, state -> {
            state.setPhase(key.phase()).setAction(key.action()).setStep(key.name()).setStepTime(now).setStepInfo(null);
            state.setFailedStep(null).setIsAutoRetryableError(null).setFailedStepRetryCount(null);
            if (key.phase().equals(old.phase()) == false) {
                state.setPhaseTime(now);
            }
            return key.action().equals(old.action()) ? state : state.setActionTime(now);
        });
    }

    private static ProjectState with(ProjectState project, Index index, UnaryOperator<LifecycleExecutionState.Builder> change) {
        var old = project.metadata().index(index).getLifecycleExecutionState();
        var changed = change.apply(LifecycleExecutionState.builder(old)).build();
        return changed.equals(old) ? project : project.updateProject(project.metadata().withLifecycleState(index, changed));
    }

    /** Publishes a change to the index's execution state, then runs the next step or lets the index rest until the next poll. */
    private void update(ProjectId projectId, Index index, Step step, UnaryOperator<ProjectState> change, boolean goOn) {
        clusterService.submitUnbatchedStateUpdateTask("ilm-step", new ClusterStateUpdateTask() {
            @Override
            public ClusterState execute(ClusterState state) {
                ProjectState current = state.projectState(projectId);
                return current.metadata().index(index) == null ? state : change.apply(current).cluster();
            }

            @Override
            public void clusterStateProcessed(ClusterState before, ClusterState after) {
                if (goOn) {
                    threadPool.generic().execute(() -> advance(projectId, index));
                } else {
                    busy.remove(index);
                }
            }

            @Override
            public void onFailure(Exception e) {
                logger.warn("[" + index.getName() + "] step " + step + ": state not published", e);
                busy.remove(index);
            }
        });
    }
}
