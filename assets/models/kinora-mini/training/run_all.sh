#!/bin/bash
# One training session: run_all.sh DATA TRAINING_DIR AE_SECONDS PLATE_SECONDS FIELD_SECONDS UNET_SECONDS [unet options]
# The three small networks train beside each other while the UNet compiles; then the UNet has the card.
D=$1; S=$2; export PYTHONUNBUFFERED=1 PYTHONPATH=$S OMP_NUM_THREADS=2
# absolute, because the scripts run from any folder
python3 $S/train_unet.py $D $6 $(( $3 + 120 )) ${@:7} & U=$!
[ $3 -gt 0 ] && { python3 $S/train_autoencoder.py $D $3 & A=$!; }
[ $4 -gt 0 ] && { python3 $S/train_plate.py $D $4 & P=$!; }
[ $5 -gt 0 ] && { python3 $S/train_field.py $D $5 & F=$!; }
wait $A $P $F
wait $U
