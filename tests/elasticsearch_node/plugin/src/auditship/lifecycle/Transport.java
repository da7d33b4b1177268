package auditship.lifecycle;

import org.elasticsearch.action.ActionListener;
import org.elasticsearch.action.ActionResponse;
import org.elasticsearch.action.support.ActionFilters;
import org.elasticsearch.action.support.local.*;
import org.elasticsearch.action.support.master.*;
import org.elasticsearch.cluster.ProjectState;
import org.elasticsearch.cluster.block.*;
import org.elasticsearch.cluster.metadata.*;
import org.elasticsearch.cluster.project.ProjectResolver;
import org.elasticsearch.cluster.service.ClusterService;
import org.elasticsearch.common.io.stream.Writeable;
import org.elasticsearch.injection.guice.Inject;
import org.elasticsearch.tasks.Task;
import org.elasticsearch.threadpool.ThreadPool;
import org.elasticsearch.transport.TransportService;
import org.elasticsearch.xpack.core.action.*;

/** The two shapes of action used here: one that the elected master carries out, one answered from the local cluster state. */
final class Transport {

    /** What an action may need of the node, injected as one. */
    public record Node(
        TransportService transport, ClusterService cluster, ThreadPool pool, ActionFilters filters, ProjectResolver projects,
        IndexNameExpressionResolver resolver, MetadataCreateDataStreamService createService
    ) {
        @Inject
        public Node {}
    }

    interface Work<R, A> {
        void run(Node node, R request, ProjectState project, ActionListener<A> listener);
    }

    abstract static class OnMaster<R extends MasterNodeRequest<R>> extends AcknowledgedTransportMasterNodeProjectAction<R> {
        private final Node node;
        private final Work<R, AcknowledgedResponse> work;

        OnMaster(String name, Node node, Writeable.Reader<R> reader, Work<R, AcknowledgedResponse> work) {
            super(name, node.transport, node.cluster, node.pool, node.filters, reader, node.projects, node.pool.generic());
            this.node = node;
            this.work = work;
        }

        @Override
        protected void masterOperation(Task task, R request, ProjectState project, ActionListener<AcknowledgedResponse> listener) {
            work.run(node, request, project, listener);
        }

        @Override
        protected ClusterBlockException checkBlock(R request, ProjectState project) {
            return project.blocks().globalBlockedException(project.projectId(), ClusterBlockLevel.METADATA_WRITE);
        }
    }

    abstract static class Local<R extends LocalClusterStateRequest, A extends ActionResponse> extends TransportLocalProjectMetadataAction<R, A> {
        private final Node node;
        private final Work<R, A> work;

        Local(String name, Node node, Work<R, A> work) {
            super(name, node.filters, node.transport.getTaskManager(), node.cluster, node.pool.generic(), node.projects);
            this.node = node;
            this.work = work;
        }

        @Override
        protected void localClusterStateOperation(Task task, R request, ProjectState project, ActionListener<A> listener) {
            work.run(node, request, project, listener);
        }

        @Override
        protected ClusterBlockException checkBlock(R request, ProjectState project) {
            return project.blocks().globalBlockedException(project.projectId(), ClusterBlockLevel.METADATA_READ);
        }
    }

    /** The delete phase asks first whether cross-cluster replication is there; its module is not, and this says so. */
    public static final class NoReplication extends XPackInfoFeatureTransportAction {
        @Inject
        public NoReplication(TransportService transport, ActionFilters filters) {
            super(XPackInfoFeatureAction.CCR.name(), transport, filters);
        }

        @Override
        protected String name() {
            return "ccr";
        }

        @Override
        protected boolean available() {
            return false;
        }

        @Override
        protected boolean enabled() {
            return false;
        }
    }

    private Transport() {}
}
