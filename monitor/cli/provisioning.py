"""The command that prepares a cluster: setup-elasticsearch."""

from __future__ import annotations

from pathlib import Path

import click

from monitor.cli.program import EXIT_OK, PATH, config_option, configuration, die, main, say, show

credentials_option = click.option(
    "--credentials", "credentials_file", type=PATH, metavar="FILE",
    help="Environment file with ES_USER and ES_PASSWORD, or ES_API_KEY, to use instead of the configured ones.",
)  # fmt: skip


@main.command("setup-elasticsearch")
@config_option
@credentials_option
@click.option(
    "--retention-days",
    "days",
    type=click.IntRange(1, 36_500),
    metavar="DAYS",
    help="Delete an index so many days after it was made. Default: what is installed, else 30.",
)
@click.option(
    "--shipper-key",
    "key_file",
    type=PATH,
    metavar="FILE",
    help="Make the least role and an API key that the delivery needs, and write the key to FILE.",
)
@click.option("--kibana-url", "url", metavar="URL", help="Import data view, searches and dashboards into this Kibana.")
@click.option("--rules", is_flag=True, help="Import the detection rules too, switched off. Needs --kibana-url.")
@click.option("--output", "directory", type=PATH, metavar="DIR",
              help="Where the files for Kibana are written. Default: kibana/ below output_dir.")  # fmt: skip
def setup_elasticsearch(
    path: Path | None, credentials_file: Path | None, days: int | None, key_file: Path | None, url: str | None,
    rules: bool, directory: Path | None,
) -> int:  # fmt: skip
    """Prepare Elasticsearch (and Kibana) for the documents; may be done again at any time.

    Installs the index template for es_config.es_index and, where the server has ILM, a policy that deletes old indices.
    The rights that this needs (manage_index_templates, manage_ilm, manage_security for --shipper-key) are more than the
    delivery has: give them with --credentials.

    \b
    Examples:
      ebpf-monitor setup-elasticsearch --credentials /root/admin.env
      ebpf-monitor setup-elasticsearch --credentials /root/admin.env --kibana-url https://kibana.example:5601 --rules
      ebpf-monitor setup-elasticsearch --credentials /root/admin.env --shipper-key /etc/ebpf-monitor/api-key
    """
    if rules and not url:
        raise click.UsageError("--rules needs --kibana-url; without it the rules are written as a file")
    from monitor import provision
    from monitor.cluster import Cluster, ClusterError, with_credentials
    from monitor.sinks.credentials import CredentialError
    from monitor.sinks.elasticsearch import EsError

    settings = configuration(path)
    es = with_credentials(settings.es_config, credentials_file)
    index = es.es_index
    try:
        show(f"{provision.write_ndjson(index, directory or settings.output_dir / 'kibana')}\n")
        with Cluster(es) as cluster:
            if cluster.warning:
                say(cluster.warning)
            for step in provision.install(cluster, index, days):
                show(f"{step}\n")
            if key_file:
                show(f"{provision.shipper_key(cluster, index, key_file)}\n")
        if url:
            with provision.kibana_at(url, es) as there:
                show(f"{provision.import_objects(there, index)}\n")
                if rules:
                    show(f"{provision.import_rules(there, index)}\n")
    except (ClusterError, CredentialError, EsError) as error:
        return die(str(error))
    return EXIT_OK
