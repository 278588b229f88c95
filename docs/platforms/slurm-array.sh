#!/bin/bash
# Run the participants of a dataset as an array job of Slurm, without Snakemake, and then the group level:
#   job=$(sbatch --parsable --array=1-$(ls -d "$BIDS"/sub-*/ | wc -l)%50 slurm-array.sh "$BIDS" "$OUT")
#   sbatch --dependency=afterany:$job --mem=4G --wrap "totalspineseg-bids '$BIDS' '$OUT' group"
# Submit it again after failures: what is complete is skipped.
#SBATCH --job-name=totalspineseg-bids --output=%x-%A_%a.log
#SBATCH --cpus-per-task=4 --mem=8G --time=1:00:00 --signal=B:TERM@60 --requeue
set -euo pipefail
bids=$1 out=$2
participants=("$bids"/sub-*/)
program=(totalspineseg-bids)
# program=(apptainer run --cleanenv -B "$bids:$bids:ro" -B "$out" totalspineseg-bids.sif)
exec "${program[@]}" "$bids" "$out" participant --skip-bids-validation --n-cpus "$SLURM_CPUS_PER_TASK" \
  --participant-label "$(basename "${participants[SLURM_ARRAY_TASK_ID - 1]}")"
