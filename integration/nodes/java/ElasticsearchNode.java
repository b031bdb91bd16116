import java.lang.reflect.Method;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.Build;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.service.ClusterService;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.index.IndexVersion;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginBundle;
import org.elasticsearch.plugins.PluginsLoader;
import org.elasticsearch.rest.RestChannel;
import org.elasticsearch.rest.RestController;
import org.elasticsearch.rest.RestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;

/** Starts a node in this process, without the launcher that the stock main class wants, and runs until it is told to end. */
public final class ElasticsearchNode {
    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(System.getProperty("es.path.home"));
        Settings settings = Settings.builder().put("path.home", home.toString()).build();
        LogConfigurator.configureESLogging();
        LogConfigurator.registerErrorListener();
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), home.resolve("config"), () -> "node");
        LogConfigurator.setNodeName(Node.NODE_NAME_SETTING.get(environment.settings()));
        LogConfigurator.configure(environment, true);

        // The last argument leaves the layers of Java modules out: everything here is on the class path.
        PluginsLoader loader = PluginsLoader.createPluginsLoader(
            bundles("loadModulesBundles", home.resolve("modules")), bundles("loadPluginsBundles", home.resolve("plugins")), Map.of(), false);
        Node node = new Node(environment, loader);
        node.injector().getInstance(RestController.class).registerHandler(new Root(node.injector().getInstance(ClusterService.class)));
        CountDownLatch ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
            ended.countDown();
        }));
        node.start();
        ended.await();
    }

    /** The plugins of a folder; 9.5 added a second argument to the loading methods of 8.19. */
    @SuppressWarnings("unchecked")
    private static Set<PluginBundle> bundles(String loading, Path folder) throws ReflectiveOperationException {
        for (Method method : PluginsLoader.class.getMethods()) {
            if (method.getName().equals(loading)) {
                Object[] values = method.getParameterCount() == 1 ? new Object[] {folder} : new Object[] {folder, false};
                return (Set<PluginBundle>) method.invoke(null, values);
            }
        }
        throw new NoSuchMethodException("PluginsLoader." + loading + ": this version of Elasticsearch was never tried");
    }

    /** Answers {@code GET /}, which every client asks and whose module Maven Central lacks. */
    private static final class Root implements RestHandler {
        private final ClusterService cluster;

        Root(ClusterService cluster) {
            this.cluster = cluster;
        }

        @Override
        public List<Route> routes() {
            return List.of(new Route(RestRequest.Method.GET, "/"), new Route(RestRequest.Method.HEAD, "/"));
        }

        @Override
        public void handleRequest(RestRequest request, RestChannel channel, NodeClient client) {
            Build build = Build.current();
            String answer = String.format(
                Locale.ROOT,
                """
                {"name": "%s", "cluster_name": "%s", "cluster_uuid": "%s", "tagline": "You Know, for Search",
                 "version": {"number": "%s", "build_flavor": "%s", "build_type": "%s", "build_hash": "%s", "build_date": "%s",
                 "build_snapshot": %s, "lucene_version": "%s", "minimum_wire_compatibility_version": "%s",
                 "minimum_index_compatibility_version": "%s"}}
                """,
                cluster.getNodeName(), cluster.getClusterName().value(), cluster.state().metadata().clusterUUID(),
                build.version(), build.flavor(), build.type().displayName(), build.hash(), build.date(),
                build.isSnapshot(), IndexVersion.current().luceneVersion(), build.minWireCompatVersion(),
                build.minIndexCompatVersion());
            channel.sendResponse(new RestResponse(RestStatus.OK, "application/json", answer));
        }
    }
}
