import io.trino.plugin.memory.MemoryConnectorFactory;
import io.trino.sql.parser.SqlParser;
import io.trino.testing.LocalQueryRunner;
import io.trino.testing.MaterializedResult;
import io.trino.testing.MaterializedRow;
import io.trino.testing.TestingSession;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;
import java.util.stream.Collectors;

/** Reads one statement per line (base64) and prints one line for each: ok and its rows, or Trino's error. */
public class Run {
    public static void main(String[] args) throws Exception {
        var session = TestingSession.testSessionBuilder().setCatalog("memory").setSchema("default").build();
        var in = new BufferedReader(new InputStreamReader(System.in));
        try (var runner = LocalQueryRunner.create(session)) {
            runner.createCatalog("memory", new MemoryConnectorFactory(), Map.of("memory.max-data-per-node", "500MB"));
            for (String line; (line = in.readLine()) != null; ) {
                String sql = new String(Base64.getDecoder().decode(line.substring(2)), StandardCharsets.UTF_8);
                String said;
                try {
                    if (line.startsWith("p ")) {
                        new SqlParser().createStatement(sql);
                        said = "ok";
                    } else {
                        MaterializedResult result = runner.execute(sql);
                        said = "ok" + result.getMaterializedRows().stream().map(MaterializedRow::getFields)
                            .map(fields -> "\t" + fields.stream().map(String::valueOf).collect(Collectors.joining("\u0001")))
                            .collect(Collectors.joining()).replace("\n", " ");
                    }
                } catch (Exception error) {
                    said = "no\t" + String.valueOf(error.getMessage()).replace("\n", " ");
                }
                System.out.println("> " + said);
                System.out.flush();
            }
        }
        System.exit(0);
    }
}
