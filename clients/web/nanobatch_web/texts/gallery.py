"""Words of the results page and the history: key -> (English, French)."""

from __future__ import annotations

GALLERY: dict[str, tuple[str, str]] = {
    "gallery.none": (
        "Open a batch from the history to see its pictures.",
        "Ouvrez un lot depuis l'historique pour voir ses images.",
    ),
    "gallery.nothing": ("No picture fits this filter and search.", "Aucune image pour ce filtre et cette recherche."),
    "gallery.filters": ("Show", "Afficher"),
    "gallery.all": ("All", "Toutes"),
    "gallery.success": ("Success", "Réussies"),
    "gallery.failed": ("Failed", "Échouées"),
    "gallery.search": ("Search in prompts", "Chercher dans les prompts"),
    "gallery.sort": ("Sort by", "Trier par"),
    "gallery.sort_prompt": ("prompt order", "ordre des prompts"),
    "gallery.sort_newest": ("newest first", "plus récentes d'abord"),
    "gallery.sort_slowest": ("slowest first", "plus lentes d'abord"),
    "gallery.sort_cost": ("most expensive first", "plus chères d'abord"),
    "gallery.board": ("Live view", "Vue en direct"),
    "gallery.zip": ("Download all as ZIP", "Tout télécharger en ZIP"),
    "gallery.zip_chosen": ("Download {count} chosen as ZIP", "Télécharger les {count} choisies en ZIP"),
    "gallery.clear": ("Choose none", "Ne rien choisir"),
    "gallery.retry_all": ("Retry all failed", "Réessayer tous les échecs"),
    "gallery.retried": ("{count} are tried again.", "{count} sont réessayées."),
    "gallery.again": ("One more like this", "Encore une comme celle-ci"),
    "gallery.again_started": ("One more is being made.", "Une autre est en préparation."),
    "gallery.again_open": ("Watch it", "La suivre"),
    "gallery.reference": ("Use as reference", "Utiliser comme référence"),
    "gallery.pick": ("Choose", "Choisir"),
    "gallery.choose": ("Choose picture {number}", "Choisir l'image {number}"),
    "gallery.key": (
        "The provider key of this batch was wiped when it ended. Give it once more; it is not kept in this page.",
        "La clé du fournisseur a été effacée à la fin du lot. Donnez-la encore une fois ; cette page ne la garde pas.",
    ),
    "gallery.key_go": ("Go on", "Continuer"),
    "gallery.never_mind": ("Never mind", "Laisser"),
    "gallery.edit": ("Prompt {number}, to be tried again", "Prompt {number}, à réessayer"),
    "gallery.try": ("Try again", "Réessayer"),
    "gallery.said": ("What was reported", "Ce qui a été signalé"),
    "gallery.free": ("free", "gratuit"),
    "card.attempt_one": ("1 attempt", "1 essai"),
    "lightbox.label": ("Picture", "Image"),
    "lightbox.close": ("Close", "Fermer"),
    "lightbox.previous": ("Previous picture", "Image précédente"),
    "lightbox.next": ("Next picture", "Image suivante"),
    "lightbox.place": ("{place} of {count}", "{place} sur {count}"),
    "lightbox.time": ("Time", "Durée"),
    "lightbox.cost": ("Cost", "Coût"),
    "lightbox.attempts": ("Attempts", "Essais"),
    "lightbox.size": ("Size", "Taille"),
    "lightbox.pixels": ("{width} × {height} pixels", "{width} × {height} pixels"),
    # Why a picture failed, and what to do: by the codes of docs/api.md.
    "why.CONTENT_BLOCKED": (
        "The provider made a picture and withheld it. Change the prompt and try again.",
        "Le fournisseur a fait une image et l'a retenue. Modifiez le prompt et réessayez.",
    ),
    "why.PROMPT_BLOCKED": (
        "The provider refuses this prompt, or a picture sent with it. Change them and try again.",
        "Le fournisseur refuse ce prompt, ou une image jointe. Modifiez-les et réessayez.",
    ),
    "why.INVALID_REQUEST": (
        "The provider refuses this request for good. Change the prompt or the settings.",
        "Le fournisseur refuse cette demande. Modifiez le prompt ou les réglages.",
    ),
    "why.REQUEST_TOO_LARGE": (
        "Prompt and pictures are too large together. Use smaller reference pictures.",
        "Le prompt et les images sont trop volumineux. Utilisez des références plus petites.",
    ),
    "why.INPUT_IMAGE_UNREADABLE": (
        "The provider cannot read a reference picture. Save it as PNG or JPEG and start anew.",
        "Le fournisseur ne peut pas lire une image de référence. Enregistrez-la en PNG ou JPEG et recommencez.",
    ),
    "why.INPUT_IMAGE_GONE": (
        "A reference picture no longer exists. Upload it again and start a new batch.",
        "Une image de référence n'existe plus. Envoyez-la de nouveau et lancez un nouveau lot.",
    ),
    "why.OUTPUT_LIMIT_REACHED": (
        "The answer was full before the picture was done. Take a smaller size or a simpler prompt.",
        "La réponse était pleine avant la fin de l'image. Prenez une taille plus petite ou un prompt plus simple.",
    ),
    "why.LANGUAGE_NOT_SUPPORTED": (
        "The provider does not take this language. Write the prompt in another one.",
        "Le fournisseur n'accepte pas cette langue. Écrivez le prompt dans une autre.",
    ),
    "why.NO_PICTURE": (
        "The provider answered without a picture, several times. Try again, or say more clearly what to draw.",
        "Le fournisseur a répondu sans image, plusieurs fois. Réessayez, ou dites plus clairement quoi dessiner.",
    ),
    "why.ANSWERED_IN_WORDS": (
        "The provider answered in words. Say clearly what to draw.",
        "Le fournisseur a répondu par des mots. Dites clairement quoi dessiner.",
    ),
    "why.NO_ANSWER": (
        "The provider's answer was empty. Try again.",
        "La réponse du fournisseur était vide. Réessayez.",
    ),
    "why.PICTURE_DAMAGED": (
        "The picture arrived damaged, twice. Try again.",
        "L'image est arrivée abîmée, deux fois. Réessayez.",
    ),
    "why.ANSWER_UNREADABLE": (
        "The answer arrived cut or garbled. Try again.",
        "La réponse est arrivée coupée ou illisible. Réessayez.",
    ),
    "why.NOT_A_PICTURE": (
        "What the provider sent is no picture. Try again.",
        "Ce que le fournisseur a envoyé n'est pas une image. Réessayez.",
    ),
    "why.PICTURE_TOO_LARGE": (
        "The picture is larger than can be kept. Try again with a smaller size.",
        "L'image est plus grande que ce qui peut être gardé. Réessayez avec une taille plus petite.",
    ),
    "why.PICTURE_ANIMATED": (
        "The provider sent a moving picture, which is not kept. Ask for a still one.",
        "Le fournisseur a envoyé une image animée, qui n'est pas gardée. Demandez une image fixe.",
    ),
    "why.PICTURE_CHECK_FAILED": (
        "The picture could not be checked, twice. Try again.",
        "L'image n'a pas pu être vérifiée, deux fois. Réessayez.",
    ),
    "why.PICTURE_REFUSED": (
        "What the provider sent is no picture that can be kept. Try again.",
        "Ce que le fournisseur a envoyé n'est pas une image qui puisse être gardée. Réessayez.",
    ),
    "why.CALL_TIMED_OUT": (
        "The provider did not answer in time. A new batch with more time is cheaper than trying often.",
        "Le fournisseur n'a pas répondu à temps. Un nouveau lot avec plus de temps coûte moins que des essais répétés.",
    ),
    "why.PROVIDER_TIMED_OUT": (
        "The provider gave up. Try again later.",
        "Le fournisseur a abandonné. Réessayez plus tard.",
    ),
    "why.CONNECTION_LOST": (
        "The connection broke after the request had left. Try again.",
        "La connexion a été coupée après l'envoi de la demande. Réessayez.",
    ),
    "why.STOPPED": (
        "The server was stopped during the call. Try again.",
        "Le serveur a été arrêté pendant l'appel. Réessayez.",
    ),
    "why.OUTCOME_UNKNOWN": (
        "The server broke off during the call, and nobody knows what came of it. Try again if you accept a second charge.",
        "Le serveur s'est interrompu pendant l'appel, l'issue est inconnue. Réessayez si vous acceptez un second débit.",
    ),
    "why.WORKER_LOST": (
        "The server broke off whenever it made this call. Change the prompt, and tell who runs the server.",
        "Le serveur s'est interrompu à chaque appel. Modifiez le prompt et prévenez qui gère le serveur.",
    ),
    "why.PROVIDER_ERROR": (
        "The provider failed, again and again. Try again later.",
        "Le fournisseur a échoué, encore et encore. Réessayez plus tard.",
    ),
    "why.PROVIDER_UNREACHABLE": (
        "The provider could not be reached. Look at the server's network, then try again.",
        "Le fournisseur était injoignable. Vérifiez le réseau du serveur, puis réessayez.",
    ),
    "why.PROVIDER_UNKNOWN": (
        "A part of the server is too old for this provider. Tell who runs it.",
        "Une partie du serveur est trop ancienne pour ce fournisseur. Prévenez qui le gère.",
    ),
    "why.PROVIDER_OVERLOADED": (
        "The provider was overloaded for a long time. Try again later.",
        "Le fournisseur est resté longtemps surchargé. Réessayez plus tard.",
    ),
    "why.KEY_CHECK_TIMEOUT": (
        "The provider did not answer about the key. Try again later.",
        "Le fournisseur n'a pas répondu au sujet de la clé. Réessayez plus tard.",
    ),
    "why.STORING_FAILED": (
        "The picture could not be stored. The server's disk may be full; tell who runs it, then try again.",
        "L'image n'a pas pu être enregistrée. Le disque du serveur est peut-être plein ; prévenez qui le gère.",
    ),
    "why.INTERNAL": (
        "A fault of the server, not yours. Try again; the number below helps who runs it to find it.",
        "Une erreur du serveur, pas la vôtre. Réessayez ; le numéro ci-dessous aide qui le gère à la trouver.",
    ),
    # History
    "history.none": (
        "No batch yet. Your batches will be listed here.",
        "Aucun lot pour l'instant. Vos lots seront listés ici.",
    ),
    "history.loading": ("Loading the history …", "Chargement de l'historique …"),
    "history.label": ("Your batches, newest first", "Vos lots, du plus récent au plus ancien"),
    "history.more": ("Show more", "Afficher plus"),
    "history.open": ("Open", "Ouvrir"),
    "history.again": ("Run again with changes", "Relancer avec des changements"),
    "history.delete": ("Delete", "Supprimer"),
    "history.delete_sure": (
        "Delete this batch with its {count} pictures for good?",
        "Supprimer définitivement ce lot et ses {count} images ?",
    ),
    "history.deleted": ("Deleted.", "Supprimé."),
    "history.counts": ("{done} of {of}, {failed}", "{done} sur {of}, {failed}"),
}
