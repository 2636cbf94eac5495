import io.trino.plugin.iceberg.IcebergPlugin;
import io.trino.plugin.memory.MemoryPlugin;
import io.trino.spi.type.TimeZoneKey;
import io.trino.sql.parser.SqlParser;
import io.trino.testing.MaterializedResult;
import io.trino.testing.MaterializedRow;
import io.trino.testing.StandaloneQueryRunner;
import io.trino.testing.TestingSession;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.stream.Collectors;

/**
 * Reads one line (base64) per call and prints one line for each: ok and its rows, or Trino's error. "x": a statement in
 * the catalog "memory"; "i": one in the catalog "iceberg", which is below the folder given as argument; "p": parse only;
 * "c": a catalog to create, as lines of properties whose first is its name.
 */
public class Run {
    public static void main(String[] args) throws Exception {
        // The server takes standard output for its log.
        var out = System.out;
        // Athena's sessions are in UTC, those of Trino's tests are not.
        var memory = TestingSession.testSessionBuilder().setTimeZoneKey(TimeZoneKey.UTC_KEY)
            .setCatalog("memory").setSchema("default").build();
        var iceberg = TestingSession.testSessionBuilder().setTimeZoneKey(TimeZoneKey.UTC_KEY)
            .setCatalog("iceberg").setSchema("lake").build();
        var in = new BufferedReader(new InputStreamReader(System.in));
        try (var runner = new StandaloneQueryRunner(memory)) {
            runner.installPlugin(new MemoryPlugin());
            runner.createCatalog("memory", "memory", Map.of("memory.max-data-per-node", "500MB"));
            runner.installPlugin(new IcebergPlugin());
            runner.createCatalog("iceberg", "iceberg", Map.of(
                "iceberg.catalog.type", "TESTING_FILE_METASTORE",
                "hive.metastore.catalog.dir", "local:///",
                "fs.local.enabled", "true",
                "local.location", Path.of(args[0]).toAbsolutePath().toString()));
            for (String line; (line = in.readLine()) != null; ) {
                String sql = new String(Base64.getDecoder().decode(line.substring(2)), StandardCharsets.UTF_8);
                String said;
                try {
                    if (line.startsWith("p ")) {
                        new SqlParser().createStatement(sql);
                        said = "ok";
                    } else if (line.startsWith("c ")) {
                        var properties = new HashMap<String, String>();
                        var lines = sql.split("\n");
                        for (int at = 1; at < lines.length; at++) {
                            var parts = lines[at].split("=", 2);
                            properties.put(parts[0], parts[1]);
                        }
                        runner.createCatalog(lines[0], "iceberg", properties);
                        said = "ok";
                    } else {
                        MaterializedResult result = runner.execute(line.startsWith("i ") ? iceberg : memory, sql);
                        said = "ok" + result.getMaterializedRows().stream().map(MaterializedRow::getFields)
                            .map(fields -> "\t" + fields.stream().map(String::valueOf).collect(Collectors.joining("\u0001")))
                            .collect(Collectors.joining()).replace("\n", " ");
                    }
                } catch (Exception error) {
                    said = "no\t" + String.valueOf(error.getMessage()).replace("\n", " ");
                }
                out.println("> " + said);
                out.flush();
            }
        }
        System.exit(0);
    }
}
