package auditship.lifecycle;

import java.io.IOException;
import java.util.*;
import java.util.function.Predicate;
import java.util.function.Supplier;
import org.elasticsearch.action.datastreams.*;
import org.elasticsearch.cluster.metadata.Metadata;
import org.elasticsearch.cluster.node.DiscoveryNodes;
import org.elasticsearch.common.settings.Setting;
import org.elasticsearch.core.CheckedFunction;
import org.elasticsearch.features.NodeFeature;
import org.elasticsearch.plugins.ActionPlugin;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.rest.RestHandler;
import org.elasticsearch.xcontent.NamedXContentRegistry.Entry;
import org.elasticsearch.xcontent.ParseField;
import org.elasticsearch.xcontent.XContentParser;
import org.elasticsearch.xpack.core.action.XPackInfoFeatureAction;
import org.elasticsearch.xpack.core.ilm.*;
import org.elasticsearch.xpack.core.ilm.action.*;

/**
 * Test plugin: gives a trimmed Elasticsearch back the parts of its two missing modules (x-pack-ilm and data-streams) that
 * an index lifecycle test needs.
 *
 * <p>Elastic's own, used as it stands: every setting, the policy parser and its validation, the request and response classes
 * and their action names (so security checks the usual privileges), the policy store in the cluster state, every ILM step,
 * and the services that create and delete data streams. Ours: the wiring here, the thin transport actions, the REST routes,
 * and the loop in {@link LifecycleRunner} that decides when the next step of an index runs.
 */
public final class LifecyclePlugin extends Plugin implements ActionPlugin {

    @Override
    public List<Setting<?>> getSettings() {
        return List.of(
            LifecycleSettings.LIFECYCLE_POLL_INTERVAL_SETTING,
            LifecycleSettings.LIFECYCLE_NAME_SETTING,
            LifecycleSettings.LIFECYCLE_INDEXING_COMPLETE_SETTING,
            LifecycleSettings.LIFECYCLE_HISTORY_INDEX_ENABLED_SETTING,
            LifecycleSettings.LIFECYCLE_STEP_MASTER_TIMEOUT_SETTING,
            LifecycleSettings.LIFECYCLE_STEP_WAIT_TIME_THRESHOLD_SETTING,
            LifecycleSettings.LIFECYCLE_ROLLOVER_ONLY_IF_HAS_DOCUMENTS_SETTING,
            LifecycleSettings.LIFECYCLE_SKIP_SETTING,
            RolloverAction.LIFECYCLE_ROLLOVER_ALIAS_SETTING
        );
    }

    @Override
    public List<Entry> getNamedXContent() {
        List<Entry> entries = new ArrayList<>();
        var store = new ParseField(IndexLifecycleMetadata.TYPE);
        entries.add(new Entry(Metadata.ProjectCustom.class, store, parser -> IndexLifecycleMetadata.PARSER.parse(parser, null)));
        var type = new ParseField(TimeseriesLifecycleType.TYPE);
        entries.add(new Entry(LifecycleType.class, type, parser -> TimeseriesLifecycleType.INSTANCE));
        action(entries, AllocateAction.NAME, AllocateAction::parse);
        action(entries, DeleteAction.NAME, DeleteAction::parse);
        action(entries, DownsampleAction.NAME, DownsampleAction::parse);
        action(entries, ForceMergeAction.NAME, ForceMergeAction::parse);
        action(entries, FreezeAction.NAME, FreezeAction::parse);
        action(entries, MigrateAction.NAME, MigrateAction::parse);
        action(entries, ReadOnlyAction.NAME, ReadOnlyAction::parse);
        action(entries, RolloverAction.NAME, RolloverAction::parse);
        action(entries, SearchableSnapshotAction.NAME, SearchableSnapshotAction::parse);
        action(entries, SetPriorityAction.NAME, SetPriorityAction::parse);
        action(entries, ShrinkAction.NAME, ShrinkAction::parse);
        action(entries, UnfollowAction.NAME, UnfollowAction::parse);
        action(entries, WaitForSnapshotAction.NAME, WaitForSnapshotAction::parse);
        return entries;
    }

    private static void action(List<Entry> entries, String name, CheckedFunction<XContentParser, LifecycleAction, IOException> parse) {
        entries.add(new Entry(LifecycleAction.class, new ParseField(name), parse));
    }

    @Override
    public Collection<?> createComponents(PluginServices services) {
        return List.of(new LifecycleRunner(services.client(), services.clusterService(), services.threadPool()));
    }

    @Override
    public Collection<ActionHandler> getActions() {
        return List.of(
            new ActionHandler(ILMActions.PUT, PolicyActions.Put.class),
            new ActionHandler(GetLifecycleAction.INSTANCE, PolicyActions.Get.class),
            new ActionHandler(DeleteLifecycleAction.INSTANCE, PolicyActions.Delete.class),
            new ActionHandler(ExplainLifecycleAction.INSTANCE, PolicyActions.Explain.class),
            new ActionHandler(CreateDataStreamAction.INSTANCE, DataStreamActions.Create.class),
            new ActionHandler(GetDataStreamAction.INSTANCE, DataStreamActions.Get.class),
            new ActionHandler(DeleteDataStreamAction.INSTANCE, DataStreamActions.Delete.class),
            new ActionHandler(XPackInfoFeatureAction.CCR, Transport.NoReplication.class)
        );
    }

    @Override
    public Collection<RestHandler> getRestHandlers(RestHandlersServices services, Supplier<DiscoveryNodes> nodes, Predicate<NodeFeature> features) {
        return RestRoutes.all();
    }
}
