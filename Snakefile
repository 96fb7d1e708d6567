# The book as a workflow: every cell of a study is a job, on this machine or on a cluster.
#
#   snakemake --cores 4 --config scale=digits                          rows of every study
#   snakemake --cores 4 --config scale=mnist studies=spectrum_vs_batch rows of one (or several: "a,b")
#   snakemake --cores 4 pages --config scale=digits                    and the notebooks run on them, in results/pages
#   snakemake --cores 4 site                                           and the site: build/live/_build/html (digits)
#   snakemake --executor slurm --jobs 20 --config scale=paper device=cuda --default-resources gpu=1
#
# Snakemake may live in an environment of its own: `hbanalysis` is called as a command; --config hbanalysis=/path/to/it.
# --config root=FOLDER names the data sets, store=FOLDER where rows go. Jobs that were cut off go on where they stopped.
import json
import subprocess

HBANALYSIS = config.get("hbanalysis", "hbanalysis")
SCALE = config.get("scale", "digits")
STORE = config.get("store", "results/store")
THREADS = int(config.get("threads", 1))
OPTIONS = [f"--{name}={config[name]}" for name in ("device", "root") if name in config]
LIVE = "build/live"  # where `hbanalysis book` keeps rows and builds the site
SECONDS_ALLOWED = 5  # times the guess, which is rough


def listed(scale, studies=()):
    """Return what `hbanalysis cells` says of a preset."""
    done = subprocess.run(
        [HBANALYSIS, "cells", *studies, "--scale", scale, "--json"], check=True, text=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


CHOSEN = [name for name in str(config.get("studies", "")).split(",") if name]
CELLS = {(cell["study"], cell["key"]): cell for cell in listed(SCALE, CHOSEN)}
ROW = STORE + "/rows/{study}/{key}.json"
PAGES = sorted({cell["notebook"] for cell in CELLS.values()})
wildcard_constraints:
    study=r"[a-z_]+",
    key=r"[0-9a-f]{20}",
    page=r"[0-9a-z_]+",


def minutes(wildcards, attempt):
    """Return the time limit of a cell in minutes, more at every attempt; a cut-off cell goes on where it stopped."""
    return int(attempt * (10 + SECONDS_ALLOWED * CELLS[wildcards.study, wildcards.key]["seconds"] / 60))


rule rows:
    input:
        [ROW.format(study=study, key=key) for study, key in CELLS],


rule pages:
    input:
        expand("results/pages/{page}.ipynb", page=PAGES),


rule cell:
    output:
        ROW,
    threads: THREADS
    retries: 2
    resources:
        runtime=minutes,
        mem_mb=6000,
    shell:
        "{HBANALYSIS:q} run {wildcards.study} --scale {SCALE:q} --key {wildcards.key} --store {STORE:q}"
        " --workers 1 --threads {threads} {OPTIONS:q}"


rule page:
    input:
        lambda wildcards: [
            ROW.format(study=study, key=key)
            for (study, key), cell in CELLS.items()
            if cell["notebook"] == wildcards.page
        ],
    output:
        "results/pages/{page}.ipynb",
    shell:
        "HBANALYSIS_STORE={STORE:q} {HBANALYSIS:q} notebook {wildcards.page} -p scale={SCALE:q} -p use_published=false"
        " --output {output:q}"


rule site:
    output:
        f"{LIVE}/_build/html/index.html",
    threads: workflow.cores
    shell:
        "{HBANALYSIS:q} book --workers {threads}"
