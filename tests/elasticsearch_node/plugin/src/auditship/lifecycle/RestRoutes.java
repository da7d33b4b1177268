package auditship.lifecycle;

import static org.elasticsearch.rest.RestRequest.Method.DELETE;
import static org.elasticsearch.rest.RestRequest.Method.GET;
import static org.elasticsearch.rest.RestRequest.Method.PUT;
import static org.elasticsearch.rest.RestUtils.getAckTimeout;
import static org.elasticsearch.rest.RestUtils.getMasterNodeTimeout;

import java.io.IOException;
import java.util.Collection;
import java.util.List;
import java.util.stream.Stream;
import org.elasticsearch.action.datastreams.*;
import org.elasticsearch.action.support.IndicesOptions;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.common.Strings;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.action.RestRefCountedChunkedToXContentListener;
import org.elasticsearch.rest.action.RestToXContentListener;
import org.elasticsearch.xpack.core.ilm.ExplainLifecycleRequest;
import org.elasticsearch.xpack.core.ilm.LifecyclePolicy;
import org.elasticsearch.xpack.core.ilm.action.*;

/** The REST routes. Each only turns an HTTP request into Elastic's own request class and sends it through the node client. */
final class RestRoutes extends BaseRestHandler {

    private interface Prepare {
        RestChannelConsumer apply(RestRequest request, NodeClient client) throws IOException;
    }

    private final String name;
    private final List<Route> routes;
    private final Prepare prepare;

    private RestRoutes(String name, RestRequest.Method method, Prepare prepare, String... paths) {
        this.name = name;
        this.routes = Stream.of(paths).map(path -> new Route(method, path)).toList();
        this.prepare = prepare;
    }

    static Collection<RestHandler> all() {
        return List.of(
            new RestRoutes("auditship_ilm_put", PUT, RestRoutes::putPolicy, "/_ilm/policy/{name}"),
            new RestRoutes("auditship_ilm_get", GET, RestRoutes::getPolicy, "/_ilm/policy", "/_ilm/policy/{name}"),
            new RestRoutes("auditship_ilm_delete", DELETE, RestRoutes::deletePolicy, "/_ilm/policy/{name}"),
            new RestRoutes("auditship_ilm_explain", GET, RestRoutes::explain, "/{index}/_ilm/explain"),
            new RestRoutes("auditship_data_stream_put", PUT, RestRoutes::createDataStream, "/_data_stream/{name}"),
            new RestRoutes("auditship_data_stream_get", GET, RestRoutes::getDataStream, "/_data_stream", "/_data_stream/{name}"),
            new RestRoutes("auditship_data_stream_delete", DELETE, RestRoutes::deleteDataStream, "/_data_stream/{name}")
        );
    }

    @Override
    public String getName() {
        return name;
    }

    @Override
    public List<Route> routes() {
        return routes;
    }

    @Override
    protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) throws IOException {
        return prepare.apply(request, client);
    }

    private static RestChannelConsumer putPolicy(RestRequest request, NodeClient client) throws IOException {
        String name = request.param("name");
        var factory = new PutLifecycleRequest.Factory() {
            @Override
            public PutLifecycleRequest create(LifecyclePolicy policy) {
                return new PutLifecycleRequest(getMasterNodeTimeout(request), getAckTimeout(request), policy);
            }

            @Override
            public String getPolicyName() {
                return name;
            }
        };
        try (var parser = request.contentParser()) {
            var put = PutLifecycleRequest.parseRequest(factory, parser);
            return channel -> client.execute(ILMActions.PUT, put, new RestToXContentListener<>(channel));
        }
    }

    private static RestChannelConsumer getPolicy(RestRequest request, NodeClient client) {
        var get = new GetLifecycleAction.Request(getMasterNodeTimeout(request), names(request, "name"));
        return channel -> client.execute(GetLifecycleAction.INSTANCE, get, new RestRefCountedChunkedToXContentListener<>(channel));
    }

    private static RestChannelConsumer deletePolicy(RestRequest request, NodeClient client) {
        var delete = new DeleteLifecycleAction.Request(getMasterNodeTimeout(request), getAckTimeout(request), request.param("name"));
        return channel -> client.execute(DeleteLifecycleAction.INSTANCE, delete, new RestToXContentListener<>(channel));
    }

    private static RestChannelConsumer explain(RestRequest request, NodeClient client) {
        var explain = new ExplainLifecycleRequest(getMasterNodeTimeout(request)).indices(names(request, "index"));
        explain.indicesOptions(IndicesOptions.fromRequest(request, explain.indicesOptions()));
        explain.onlyManaged(request.paramAsBoolean("only_managed", false));
        explain.onlyErrors(request.paramAsBoolean("only_errors", false));
        return channel -> client.execute(ExplainLifecycleAction.INSTANCE, explain, new RestToXContentListener<>(channel));
    }

    private static RestChannelConsumer createDataStream(RestRequest request, NodeClient client) {
        var create = new CreateDataStreamAction.Request(getMasterNodeTimeout(request), getAckTimeout(request), request.param("name"));
        return channel -> client.execute(CreateDataStreamAction.INSTANCE, create, new RestToXContentListener<>(channel));
    }

    private static RestChannelConsumer getDataStream(RestRequest request, NodeClient client) {
        var get = new GetDataStreamAction.Request(getMasterNodeTimeout(request), names(request, "name"));
        get.indicesOptions(IndicesOptions.fromRequest(request, get.indicesOptions()));
        return channel -> client.execute(GetDataStreamAction.INSTANCE, get, new RestToXContentListener<>(channel));
    }

    private static RestChannelConsumer deleteDataStream(RestRequest request, NodeClient client) {
        var delete = new DeleteDataStreamAction.Request(getMasterNodeTimeout(request), names(request, "name"));
        delete.indicesOptions(IndicesOptions.fromRequest(request, delete.indicesOptions()));
        return channel -> client.execute(DeleteDataStreamAction.INSTANCE, delete, new RestToXContentListener<>(channel));
    }

    private static String[] names(RestRequest request, String parameter) {
        return Strings.splitStringByCommaToArray(request.param(parameter));
    }
}
