package auditship.lifecycle;

import java.util.*;
import org.elasticsearch.ResourceNotFoundException;
import org.elasticsearch.action.ActionListener;
import org.elasticsearch.action.datastreams.*;
import org.elasticsearch.action.datastreams.GetDataStreamAction.Response.*;
import org.elasticsearch.action.support.IndicesOptions;
import org.elasticsearch.action.support.master.AcknowledgedResponse;
import org.elasticsearch.cluster.*;
import org.elasticsearch.cluster.health.ClusterStateHealth;
import org.elasticsearch.cluster.metadata.*;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.index.Index;
import org.elasticsearch.index.IndexSettings;
import org.elasticsearch.injection.guice.Inject;

/** Create, get and delete data streams; the work itself is done by the server's own metadata services. */
final class DataStreamActions {

    public static final class Create extends Transport.OnMaster<CreateDataStreamAction.Request> {
        @Inject
        public Create(Transport.Node node) {
            super(CreateDataStreamAction.NAME, node, CreateDataStreamAction.Request::new, DataStreamActions::create);
        }
    }

    public static final class Delete extends Transport.OnMaster<DeleteDataStreamAction.Request> {
        @Inject
        public Delete(Transport.Node node) {
            super(DeleteDataStreamAction.NAME, node, DeleteDataStreamAction.Request::new, DataStreamActions::delete);
        }
    }

    public static final class Get extends Transport.Local<GetDataStreamAction.Request, GetDataStreamAction.Response> {
        @Inject
        public Get(Transport.Node node) {
            super(GetDataStreamAction.NAME, node, DataStreamActions::get);
        }
    }

    private static void create(
        Transport.Node node, CreateDataStreamAction.Request request, ProjectState project, ActionListener<AcknowledgedResponse> listener
    ) {
        var update = new MetadataCreateDataStreamService.CreateDataStreamClusterStateUpdateRequest(
            project.projectId(), request.getName(), null, request.masterNodeTimeout(), request.ackTimeout()
        );
        node.createService().createDataStream(update, listener);
    }

    private static void delete(
        Transport.Node node, DeleteDataStreamAction.Request request, ProjectState project, ActionListener<AcknowledgedResponse> listener
    ) {
        node.cluster().submitUnbatchedStateUpdateTask("delete-data-stream", new ClusterStateUpdateTask(request.masterNodeTimeout()) {
            @Override
            public ClusterState execute(ClusterState state) {
                ProjectState current = state.projectState(project.projectId());
                Set<DataStream> streams = new LinkedHashSet<>(streams(node, current, request.getNames(), request.indicesOptions()));
                Settings settings = node.cluster().getSettings();
                return streams.isEmpty() ? state : MetadataDataStreamsService.deleteDataStreams(current, streams, settings);
            }

            @Override
            public void clusterStateProcessed(ClusterState before, ClusterState after) {
                listener.onResponse(AcknowledgedResponse.TRUE);
            }

            @Override
            public void onFailure(Exception e) {
                listener.onFailure(e);
            }
        });
    }

    private static void get(
        Transport.Node node, GetDataStreamAction.Request request, ProjectState project, ActionListener<GetDataStreamAction.Response> listener
    ) {
        var found = streams(node, project, request.getNames(), request.indicesOptions());
        listener.onResponse(new GetDataStreamAction.Response(found.stream().map(stream -> info(project, stream)).toList()));
    }

    private static DataStreamInfo info(ProjectState project, DataStream stream) {
        ProjectMetadata metadata = project.metadata();
        String template = MetadataIndexTemplateService.findV2Template(metadata, stream.getName(), stream.isHidden());
        Settings settings = template == null ? Settings.EMPTY : MetadataIndexTemplateService.resolveSettings(metadata, template);
        Map<Index, IndexProperties> properties = new HashMap<>();
        for (Index index : stream.getIndices()) {
            Settings own = metadata.index(index).getSettings();
            String policy = metadata.index(index).getLifecyclePolicyName();
            ManagedBy by = policy == null ? ManagedBy.UNMANAGED : ManagedBy.ILM;
            boolean preferIlm = IndexSettings.PREFER_ILM_SETTING.get(own);
            properties.put(index, new IndexProperties(preferIlm, policy, by, IndexSettings.MODE.get(own).getName()));
        }
        String[] names = stream.getIndices().stream().map(Index::getName).toArray(String[]::new);
        var status = new ClusterStateHealth(project.cluster(), names, project.projectId()).getStatus();
        String mode = stream.getIndexMode() == null ? null : stream.getIndexMode().getName();
        String policy = settings.get(IndexMetadata.LIFECYCLE_NAME);
        boolean preferIlm = IndexSettings.PREFER_ILM_SETTING.get(settings);
        return new DataStreamInfo(stream, false, status, template, policy, null, properties, preferIlm, null, mode);
    }

    private static List<DataStream> streams(Transport.Node node, ProjectState project, String[] names, IndicesOptions options) {
        String[] wanted = names.length == 0 ? new String[] { "*" } : names;
        return DataStreamsActionUtil.getDataStreamNames(node.resolver(), project.metadata(), wanted, options).stream().map(name -> {
            DataStream stream = project.metadata().dataStreams().get(name);
            if (stream == null) {
                throw new ResourceNotFoundException("data_stream [" + name + "] not found");
            }
            return stream;
        }).toList();
    }

    private DataStreamActions() {}
}
